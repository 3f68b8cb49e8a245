//! Name look-ups on a bounded number of threads.
//!
//! `getaddrinfo` can't be cancelled: its thread stays occupied after the caller has given up, until the name servers
//! answer. The runtime has few blocking threads, and large requests need them as well.

use std::{
    collections::HashMap,
    fmt, io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::model::Name;

/// Maximum number of threads in name look-ups.
const MAX_LOOKUPS: usize = 32;
/// Maximum number of threads in name look-ups for one tenant.
const MAX_LOOKUPS_PER_TENANT: usize = 4;
/// Time that a look-up waits for a free thread. It is shorter than the timeout of a call.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Function that returns the addresses of a host name. It may block.
type ResolveFn = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Resolver that occupies a bounded number of blocking threads, in total and for each tenant.
pub struct BoundedResolver {
    resolve: Arc<ResolveFn>,
    permits: Arc<Semaphore>,
    tenant_permits: Mutex<HashMap<Name, Weak<Semaphore>>>,
    permit_timeout: Duration,
}

impl fmt::Debug for BoundedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups")
            .field("free", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}

impl Default for BoundedResolver {
    fn default() -> Self {
        let resolve = |host: &str| Ok((host, 0).to_socket_addrs()?.collect());
        Self::new(Arc::new(resolve), PERMIT_TIMEOUT)
    }
}

impl BoundedResolver {
    fn new(resolve: Arc<ResolveFn>, patience: Duration) -> Self {
        Self {
            resolve,
            permits: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            tenant_permits: Mutex::default(),
            permit_timeout: patience,
        }
    }

    /// Returns the addresses of a host name, with port 0, on behalf of a tenant.
    ///
    /// A thread stays counted until its look-up has ended, even if the future is dropped before.
    ///
    /// # Errors
    /// Fails if the look-up fails, or if no thread becomes free within two seconds.
    pub async fn resolve(
        &self,
        tenant: Option<&Name>,
        host: String,
    ) -> io::Result<Vec<SocketAddr>> {
        let tenant_permits = tenant.map(|tenant| self.permits_of(tenant));
        let all = Arc::clone(&self.permits);
        // The tenant's permit comes first: a tenant above its bound must not wait in the queue of all tenants.
        let acquire = async {
            let tenant_permits = match tenant_permits {
                Some(tenant_permits) => Some(tenant_permits.acquire_owned().await),
                None => None,
            };
            let all = all.acquire_owned().await;
            (tenant_permits.transpose(), all)
        };
        let permits = timeout(self.permit_timeout, acquire).await.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "too many name look-ups are in progress: try again later",
            )
        })?;
        let (Ok(tenant_permit), Ok(all)) = permits else {
            return Err(io::Error::other("the resolver has stopped"));
        };
        let resolve = Arc::clone(&self.resolve);
        let lookup = spawn_blocking(move || {
            let addresses = resolve(&host);
            drop((tenant_permit, all));
            addresses
        });
        lookup.await.map_err(io::Error::other)?
    }

    /// Returns the semaphore of a tenant's look-ups. Removes the entries of tenants without look-ups.
    fn permits_of(&self, tenant: &Name) -> Arc<Semaphore> {
        let tenants = &mut *self
            .tenant_permits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = tenants.get(tenant).and_then(Weak::upgrade) {
            return permits;
        }
        tenants.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(MAX_LOOKUPS_PER_TENANT));
        tenants.insert(tenant.clone(), Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Condvar,
            atomic::{AtomicUsize, Ordering},
        },
        time::Instant,
    };

    use super::*;

    /// Name servers that do not answer queries for `dead` until [`Self::answer`] is called.
    #[derive(Default)]
    struct Servers {
        answering: Mutex<bool>,
        answered: Condvar,
        lookups_started: AtomicUsize,
    }

    impl Servers {
        fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
            if host == "dead" {
                self.lookups_started.fetch_add(1, Ordering::SeqCst);
                let answer = self.answering.lock().unwrap();
                drop(self.answered.wait_while(answer, |answer| !*answer).unwrap());
            }
            Ok(vec![([192, 0, 2, 1], 0).into()])
        }

        fn answer(&self) {
            *self.answering.lock().unwrap() = true;
            self.answered.notify_all();
        }
    }

    fn lookups() -> (Arc<Servers>, BoundedResolver) {
        let servers = Arc::new(Servers::default());
        let asked = Arc::clone(&servers);
        let resolve = Arc::new(move |host: &str| asked.resolve(host));
        (
            servers,
            BoundedResolver::new(resolve, Duration::from_millis(50)),
        )
    }

    /// Looks `dead` up for the tenant, and drops the look-up as soon as it occupies a thread or is refused.
    async fn abandon(servers: &Servers, lookups: &BoundedResolver, tenant: &Name) {
        let before = servers.lookups_started.load(Ordering::SeqCst);
        let started = async {
            while servers.lookups_started.load(Ordering::SeqCst) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            refused = lookups.resolve(Some(tenant), "dead".to_owned()) => {
                assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            () = started => {}
        }
    }

    #[tokio::test]
    async fn abandoned_lookup_holds_its_permit_until_its_thread_ends() {
        let (servers, lookups) = lookups();
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        for _ in 0..MAX_LOOKUPS_PER_TENANT + 2 {
            abandon(&servers, &lookups, &a).await;
        }
        assert_eq!(
            servers.lookups_started.load(Ordering::SeqCst),
            MAX_LOOKUPS_PER_TENANT
        );
        let refused = lookups.resolve(Some(&a), "alive".to_owned()).await;
        let other = lookups.resolve(Some(&b), "alive".to_owned()).await;
        servers.answer();
        assert!(refused.is_err() && other.is_ok());
        let deadline = Instant::now() + Duration::from_secs(20);
        while lookups.resolve(Some(&a), "alive".to_owned()).await.is_err() {
            assert!(Instant::now() < deadline, "the threads have ended");
        }
    }

    #[tokio::test]
    async fn lookups_of_all_tenants_use_a_bounded_number_of_threads() {
        let (servers, lookups) = lookups();
        for number in 0..MAX_LOOKUPS {
            let tenant = format!("t{number}").parse().unwrap();
            abandon(&servers, &lookups, &tenant).await;
            abandon(&servers, &lookups, &tenant).await;
        }
        let asked = servers.lookups_started.load(Ordering::SeqCst);
        let blocked = lookups.resolve(None, "alive".to_owned()).await;
        // Other work still finds a blocking thread.
        let work = spawn_blocking(|| 1).await;
        servers.answer();
        assert_eq!(asked, MAX_LOOKUPS);
        assert!(blocked.is_err());
        assert_eq!(work.unwrap(), 1);
    }
}
