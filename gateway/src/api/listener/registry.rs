//! The connections of a listener, with limits for all of them, for each source, and for unauthenticated ones.
//!
//! A new connection is never queued. If a limit of unauthenticated connections is reached, the oldest one of the source
//! with most of them is evicted. A client that holds many connections and does not authenticate loses them to new
//! clients, and can't lock anybody out.
//!
//! A connection counts as authenticated only while its principal and tenant are below their limits
//! ([`ConcurrencyLimiter`]), and while fewer than [`ListenerLimits::authenticated`] connections are. Beyond the limits
//! it is served, but can be evicted like an unauthenticated one. One credential, or a few tenants together, can
//! therefore not take all connections.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    api::{
        admission::{ConcurrencyLimiter, ConcurrencyPermit},
        source::ClientSource,
    },
    model::Principal,
};

/// Time after which an authenticated connection loses its share if it sends only requests without a credential.
const AUTHENTICATION_LIFETIME: Duration = Duration::from_secs(60);

/// Limits of a listener's connections.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct ListenerLimits {
    /// All connections.
    pub(in crate::api) total: usize,
    /// Connections of one source.
    pub(in crate::api) per_source: usize,
    /// Authenticated connections. The rest of `total` stays available to new connections.
    pub(in crate::api) authenticated: usize,
    /// Authenticated connections of one principal.
    pub(in crate::api) authenticated_per_principal: usize,
    /// Authenticated connections of the principals of one tenant.
    pub(in crate::api) authenticated_per_tenant: usize,
    /// Unauthenticated connections.
    pub(in crate::api) unauthenticated: usize,
    /// Unauthenticated connections of one source.
    pub(in crate::api) unauthenticated_per_source: usize,
}

/// The connections of a listener.
#[derive(Debug)]
pub(in crate::api) struct ConnectionRegistry {
    limits: ListenerLimits,
    authenticated_limiter: Arc<ConcurrencyLimiter>,
    table: Mutex<ConnectionTable>,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    last_number: u64,
    total: usize,
    unauthenticated: usize,
    sources: HashMap<ClientSource, SourceConnections>,
}

/// The connections of one source.
#[derive(Debug, Default)]
struct SourceConnections {
    total: usize,
    /// The unauthenticated connections, oldest first.
    unauthenticated: BTreeMap<u64, Arc<Notify>>,
}

/// The entry of one connection, removed when dropped.
#[derive(Debug)]
pub(in crate::api) struct RegisteredConnection {
    registry: Arc<ConnectionRegistry>,
    source: ClientSource,
    number: u64,
    evicted: Arc<Notify>,
    /// The share of an authenticated connection. Lock order: before the registry's table.
    permit: Mutex<Option<AuthenticatedPermit>>,
    /// True from the first authenticated request on.
    was_authenticated: AtomicBool,
}

/// The share that an authenticated connection holds.
#[derive(Debug)]
struct AuthenticatedPermit {
    _permit: ConcurrencyPermit,
    /// The time of the last authenticated request.
    last_authenticated: Instant,
}

impl ConnectionRegistry {
    pub(in crate::api) fn new(limits: ListenerLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            authenticated_limiter: ConcurrencyLimiter::new(
                limits.authenticated_per_principal,
                limits.authenticated_per_tenant,
            ),
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a new connection, if the limits allow it or another connection can be evicted.
    pub(in crate::api) fn register(
        registry: &Arc<Self>,
        source: ClientSource,
    ) -> Option<Arc<RegisteredConnection>> {
        let limits = registry.limits;
        let table = &mut *registry.table();
        let connections = table.sources.get(&source);
        let (of_source, unauthenticated) =
            connections.map_or((0, 0), |held| (held.total, held.unauthenticated.len()));
        if of_source >= limits.per_source || unauthenticated >= limits.unauthenticated_per_source {
            if !table.evict(source) {
                return None;
            }
        } else if table.total >= limits.total || table.unauthenticated >= limits.unauthenticated {
            let fullest = table.fullest_source()?;
            table.evict(fullest);
        }
        table.last_number += 1;
        table.total += 1;
        table.unauthenticated += 1;
        let number = table.last_number;
        let evicted = Arc::new(Notify::new());
        let connections = table.sources.entry(source).or_default();
        connections.total += 1;
        connections
            .unauthenticated
            .insert(number, Arc::clone(&evicted));
        Some(Arc::new(RegisteredConnection {
            registry: Arc::clone(registry),
            source,
            number,
            evicted,
            permit: Mutex::default(),
            was_authenticated: AtomicBool::new(false),
        }))
    }
}

impl ConnectionTable {
    /// Returns the source with most unauthenticated connections.
    fn fullest_source(&self) -> Option<ClientSource> {
        let some = self
            .sources
            .iter()
            .filter(|(_, connections)| !connections.unauthenticated.is_empty());
        let fullest = some.max_by_key(|(source, held)| (held.unauthenticated.len(), **source));
        fullest.map(|(source, _)| *source)
    }

    /// Evicts the oldest unauthenticated connection of the source. Its entry is free at once, although its task may
    /// take a moment to end.
    fn evict(&mut self, source: ClientSource) -> bool {
        let Some(connections) = self.sources.get_mut(&source) else {
            return false;
        };
        let Some((_, evicted)) = connections.unauthenticated.pop_first() else {
            return false;
        };
        evicted.notify_one();
        connections.total -= 1;
        self.total -= 1;
        self.unauthenticated -= 1;
        if connections.total == 0 {
            self.sources.remove(&source);
        }
        true
    }
}

impl RegisteredConnection {
    fn permit(&self) -> MutexGuard<'_, Option<AuthenticatedPermit>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a request on the connection was authenticated. From then on the connection can't be evicted, if the
    /// caller and its tenant are below their limits.
    pub(in crate::api) fn authenticate(&self, caller: &Principal) {
        self.was_authenticated.store(true, Ordering::Release);
        let mut permit = self.permit();
        if let Some(share) = &mut *permit {
            share.last_authenticated = Instant::now();
            return;
        }
        let Some(concurrency_permit) =
            ConcurrencyLimiter::acquire(&self.registry.authenticated_limiter, caller)
        else {
            return;
        };
        let table = &mut *self.registry.table();
        if table.total - table.unauthenticated >= self.registry.limits.authenticated {
            return;
        }
        // A connection that was just evicted has no entry, and gets no share.
        if let Some(connections) = table.sources.get_mut(&self.source)
            && connections.unauthenticated.remove(&self.number).is_some()
        {
            table.unauthenticated -= 1;
            *permit = Some(AuthenticatedPermit {
                _permit: concurrency_permit,
                last_authenticated: Instant::now(),
            });
        }
    }

    /// Releases the connection's share, so that it can be evicted.
    pub(in crate::api) fn revoke(&self) {
        self.release(&mut self.permit());
    }

    /// Releases the connection's share if no request on it was authenticated for [`AUTHENTICATION_LIFETIME`].
    pub(in crate::api) fn revoke_if_stale(&self, now: Instant) {
        let mut permit = self.permit();
        let stale = |share: &AuthenticatedPermit| {
            now.saturating_duration_since(share.last_authenticated) >= AUTHENTICATION_LIFETIME
        };
        if permit.as_ref().is_some_and(stale) {
            self.release(&mut permit);
        }
    }

    fn release(&self, permit: &mut Option<AuthenticatedPermit>) {
        if permit.take().is_none() {
            return;
        }
        let table = &mut *self.registry.table();
        if let Some(connections) = table.sources.get_mut(&self.source) {
            let evicted = Arc::clone(&self.evicted);
            connections.unauthenticated.insert(self.number, evicted);
            table.unauthenticated += 1;
        }
    }

    /// Returns true if the connection holds a share of an authenticated caller.
    pub(in crate::api) fn is_authenticated(&self) -> bool {
        self.permit().is_some()
    }

    /// Returns true if any request on the connection was ever authenticated.
    pub(in crate::api) fn was_authenticated(&self) -> bool {
        self.was_authenticated.load(Ordering::Acquire)
    }

    /// Completes when the connection is evicted.
    pub(in crate::api) async fn wait_evicted(&self) {
        self.evicted.notified().await;
    }

    pub(in crate::api) const fn source(&self) -> ClientSource {
        self.source
    }
}

impl Drop for RegisteredConnection {
    fn drop(&mut self) {
        let permit = self.permit.get_mut();
        let authenticated = permit.unwrap_or_else(PoisonError::into_inner).is_some();
        let table = &mut *self.registry.table();
        let Some(connections) = table.sources.get_mut(&self.source) else {
            return;
        };
        if connections.unauthenticated.remove(&self.number).is_some() {
            table.unauthenticated -= 1;
        } else if !authenticated {
            // The connection was evicted, which released its entry.
            return;
        }
        connections.total -= 1;
        table.total -= 1;
        if connections.total == 0 {
            table.sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, Role};

    const LIMITS: ListenerLimits = ListenerLimits {
        total: 8,
        per_source: 4,
        authenticated: 7,
        authenticated_per_principal: 4,
        authenticated_per_tenant: 5,
        unauthenticated: 5,
        unauthenticated_per_source: 3,
    };

    fn operator() -> Principal {
        Principal::operator("operator", "socket")
    }

    fn caller(name: &str, tenant: &str) -> Principal {
        Principal {
            identity: name.to_owned(),
            name: name.to_owned(),
            from: "192.0.2.1".to_owned(),
            access: Access::Tenants([(tenant.parse().unwrap(), Role::Viewer)].into()),
        }
    }

    fn source(last: u8) -> ClientSource {
        ClientSource::from_address([192, 0, 2, last].into())
    }

    fn is_evicted(connection: &RegisteredConnection) -> bool {
        use std::{future::Future as _, pin::pin, task::Context};
        let mut context = Context::from_waker(std::task::Waker::noop());
        pin!(connection.wait_evicted())
            .as_mut()
            .poll(&mut context)
            .is_ready()
    }

    #[test]
    fn a_source_at_its_limit_loses_its_oldest_connection() {
        let registry = ConnectionRegistry::new(LIMITS);
        let admit = || ConnectionRegistry::register(&registry, source(1)).unwrap();
        let seats = [admit(), admit(), admit()];
        assert!(!seats.iter().any(|seat| is_evicted(seat)));
        let _fourth = admit();
        assert!(is_evicted(&seats[0]) && !is_evicted(&seats[1]));
        assert_eq!(registry.table().total, 3);
    }

    #[test]
    fn new_connections_evict_from_the_fullest_source() {
        let registry = ConnectionRegistry::new(LIMITS);
        let greedy =
            [1, 1, 1, 2, 2].map(|n| ConnectionRegistry::register(&registry, source(n)).unwrap());
        let newcomer = ConnectionRegistry::register(&registry, source(3)).unwrap();
        assert!(is_evicted(&greedy[0]));
        assert!(!greedy[1..].iter().any(|seat| is_evicted(seat)));
        newcomer.authenticate(&operator());
        assert_eq!(registry.table().unauthenticated, 4);
    }

    #[test]
    fn authenticated_connections_are_never_evicted() {
        let registry = ConnectionRegistry::new(LIMITS);
        let mut seats = Vec::new();
        for number in 0..8 {
            let connection = ConnectionRegistry::register(&registry, source(number)).unwrap();
            connection.authenticate(&operator());
            seats.push(connection);
        }
        // The eighth is beyond the limit of authenticated connections, and is evicted.
        let newcomer = ConnectionRegistry::register(&registry, source(9)).unwrap();
        assert!(is_evicted(&seats[7]) && !seats[..7].iter().any(|seat| is_evicted(seat)));
        newcomer.authenticate(&operator());
        assert!(!newcomer.is_authenticated() && newcomer.was_authenticated());
        seats.remove(0);
        newcomer.authenticate(&operator());
        assert!(newcomer.is_authenticated());
    }

    #[test]
    fn authenticated_connections_are_limited_per_principal_and_tenant() {
        let registry = ConnectionRegistry::new(LIMITS);
        let register = |number: u8, caller: &Principal| {
            let connection = ConnectionRegistry::register(&registry, source(number)).unwrap();
            connection.authenticate(caller);
            connection
        };
        let one = caller("one", "a");
        let seats: Vec<_> = (0..5).map(|number| register(number, &one)).collect();
        assert!(seats[..4].iter().all(|seat| seat.is_authenticated()));
        assert!(!seats[4].is_authenticated());
        let two = caller("two", "a");
        let more = [register(5, &two), register(6, &two)];
        assert!(more[0].is_authenticated() && !more[1].is_authenticated());
        let other = register(7, &caller("other", "b"));
        assert!(other.is_authenticated());
    }

    #[test]
    fn a_revoked_connection_can_be_evicted_and_releases_its_permit() {
        let registry = ConnectionRegistry::new(LIMITS);
        let one = caller("one", "a");
        let seats = [0, 1, 2, 3].map(|number| {
            let connection = ConnectionRegistry::register(&registry, source(number)).unwrap();
            connection.authenticate(&one);
            connection
        });
        seats[0].revoke();
        seats[0].revoke();
        assert!(!seats[0].is_authenticated() && seats[0].was_authenticated());
        assert_eq!(registry.table().unauthenticated, 1);
        let fifth = ConnectionRegistry::register(&registry, source(4)).unwrap();
        fifth.authenticate(&one);
        assert!(fifth.is_authenticated());
        let now = Instant::now();
        fifth.revoke_if_stale(now);
        assert!(fifth.is_authenticated());
        fifth.revoke_if_stale(now + AUTHENTICATION_LIFETIME + Duration::from_secs(1));
        assert!(!fifth.is_authenticated());
        drop((seats, fifth));
        let table = registry.table();
        assert_eq!(
            (table.total, table.unauthenticated, table.sources.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn released_permits_leave_no_entries() {
        let registry = ConnectionRegistry::new(LIMITS);
        let mut seats: Vec<_> = (0..20)
            .filter_map(|n| ConnectionRegistry::register(&registry, source(n % 3)))
            .collect();
        // A connection that is evicted while it authenticates.
        seats.iter().for_each(|seat| seat.authenticate(&operator()));
        seats.clear();
        let table = registry.table();
        assert_eq!(
            (table.total, table.unauthenticated, table.sources.len()),
            (0, 0, 0)
        );
    }
}
