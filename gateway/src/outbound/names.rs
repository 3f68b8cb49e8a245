//! Look-ups of names, with a bound on the threads that they occupy.
//!
//! `getaddrinfo` can't be cancelled: its thread stays occupied after the caller has given up, for as long as the name
//! servers do not answer. The runtime's blocking threads are few, and large requests need them as well.

use std::{
    collections::HashMap,
    fmt, io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::model::Name;

/// Threads that look names up at the same time.
const MOST: usize = 32;
/// Of these, threads that look names up for one tenant.
const MOST_OF_TENANT: usize = 4;
/// Time for which a look-up waits for a thread. It is shorter than the time of a call.
const PATIENCE: Duration = Duration::from_secs(2);

/// A function that returns the addresses of a host name, and may block.
type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Look-ups of names on a bounded number of blocking threads, in all and for each tenant.
pub struct Lookups {
    resolve: Arc<Resolve>,
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<Name, Weak<Semaphore>>>,
    patience: Duration,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups")
            .field("free", &self.all.available_permits())
            .finish_non_exhaustive()
    }
}

impl Default for Lookups {
    fn default() -> Self {
        let resolve = |host: &str| Ok((host, 0).to_socket_addrs()?.collect());
        Self::new(Arc::new(resolve), PATIENCE)
    }
}

impl Lookups {
    fn new(resolve: Arc<Resolve>, patience: Duration) -> Self {
        Self {
            resolve,
            all: Arc::new(Semaphore::new(MOST)),
            tenants: Mutex::default(),
            patience,
        }
    }

    /// Returns the addresses of a host name, with port 0. `tenant` is the one that the look-up is made for.
    ///
    /// A thread stays counted until the look-up itself has ended, even if the future is dropped before.
    ///
    /// # Errors
    /// When the look-up fails, or no thread was free for two seconds.
    pub async fn resolve(
        &self,
        tenant: Option<&Name>,
        host: String,
    ) -> io::Result<Vec<SocketAddr>> {
        let share = tenant.map(|tenant| self.share(tenant));
        let all = Arc::clone(&self.all);
        // The tenant's share comes first: a tenant beyond it must not stand in the queue of all.
        let acquire = async {
            let share = match share {
                Some(share) => Some(share.acquire_owned().await),
                None => None,
            };
            let all = all.acquire_owned().await;
            (share.transpose(), all)
        };
        let permits = timeout(self.patience, acquire).await.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "too many look-ups of names are under way",
            )
        })?;
        let (Ok(share), Ok(all)) = permits else {
            return Err(io::Error::other("look-ups of names have ended"));
        };
        let resolve = Arc::clone(&self.resolve);
        let lookup = spawn_blocking(move || {
            let found = resolve(&host);
            drop((share, all));
            found
        });
        lookup.await.map_err(io::Error::other)?
    }

    /// Returns the semaphore of a tenant's look-ups; the entries of tenants without any are removed.
    fn share(&self, tenant: &Name) -> Arc<Semaphore> {
        let tenants = &mut *self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        tenants.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(MOST_OF_TENANT));
        tenants.insert(tenant.clone(), Arc::downgrade(&share));
        share
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

    /// Name servers that answer nothing about `dead`, until they are told to.
    #[derive(Default)]
    struct Servers {
        answer: Mutex<bool>,
        told: Condvar,
        asked: AtomicUsize,
    }

    impl Servers {
        fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
            if host == "dead" {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let answer = self.answer.lock().unwrap();
                drop(self.told.wait_while(answer, |answer| !*answer).unwrap());
            }
            Ok(vec![([192, 0, 2, 1], 0).into()])
        }

        fn answer(&self) {
            *self.answer.lock().unwrap() = true;
            self.told.notify_all();
        }
    }

    fn lookups() -> (Arc<Servers>, Lookups) {
        let servers = Arc::new(Servers::default());
        let asked = Arc::clone(&servers);
        let resolve = Arc::new(move |host: &str| asked.resolve(host));
        (servers, Lookups::new(resolve, Duration::from_millis(50)))
    }

    /// Looks `dead` up for the tenant, and gives up as soon as a thread is occupied or the look-up is refused.
    async fn abandon(servers: &Servers, lookups: &Lookups, tenant: &Name) {
        let before = servers.asked.load(Ordering::SeqCst);
        let started = async {
            while servers.asked.load(Ordering::SeqCst) == before {
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
    async fn an_abandoned_look_up_counts_until_its_thread_ends() {
        let (servers, lookups) = lookups();
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        for _ in 0..MOST_OF_TENANT + 2 {
            abandon(&servers, &lookups, &a).await;
        }
        assert_eq!(servers.asked.load(Ordering::SeqCst), MOST_OF_TENANT);
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
    async fn all_tenants_together_occupy_a_bounded_number_of_threads() {
        let (servers, lookups) = lookups();
        for number in 0..MOST {
            let tenant = format!("t{number}").parse().unwrap();
            abandon(&servers, &lookups, &tenant).await;
            abandon(&servers, &lookups, &tenant).await;
        }
        let asked = servers.asked.load(Ordering::SeqCst);
        let blocked = lookups.resolve(None, "alive".to_owned()).await;
        // Other work still finds a blocking thread.
        let work = spawn_blocking(|| 1).await;
        servers.answer();
        assert_eq!(asked, MOST);
        assert!(blocked.is_err());
        assert_eq!(work.unwrap(), 1);
    }
}
