//! The connections of a listener, with bounds for all, for each source, and for those that did not authenticate.
//!
//! A newcomer is never queued. Where a bound is reached that connections without authentication share, the oldest of
//! them gives its place up, of the source that has most: whoever holds many connections and does not authenticate
//! loses them to others that arrive, and can't keep anybody out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::api::source::Source;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Limits {
    /// Connections.
    pub(in crate::api) all: usize,
    /// Connections of one source.
    pub(in crate::api) of_source: usize,
    /// Connections that did not authenticate.
    pub(in crate::api) unauthenticated: usize,
    /// Connections of one source that did not authenticate.
    pub(in crate::api) unauthenticated_of_source: usize,
}

/// The connections of a listener.
#[derive(Debug)]
pub(in crate::api) struct Registry {
    limits: Limits,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: usize,
    unauthenticated: usize,
    sources: HashMap<Source, Held>,
}

/// The connections of one source.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Those that did not authenticate, oldest first.
    unauthenticated: BTreeMap<u64, Arc<Notify>>,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(in crate::api) struct Seat {
    registry: Arc<Registry>,
    source: Source,
    number: u64,
    evicted: Arc<Notify>,
    authenticated: AtomicBool,
}

impl Registry {
    pub(in crate::api) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a new connection a place, if there is one or can be made one.
    pub(in crate::api) fn admit(registry: &Arc<Self>, source: Source) -> Option<Arc<Seat>> {
        let limits = registry.limits;
        let table = &mut *registry.table();
        let held = table.sources.get(&source);
        let (of_source, unauthenticated) =
            held.map_or((0, 0), |held| (held.all, held.unauthenticated.len()));
        if of_source >= limits.of_source || unauthenticated >= limits.unauthenticated_of_source {
            if !table.evict(source) {
                return None;
            }
        } else if table.all >= limits.all || table.unauthenticated >= limits.unauthenticated {
            let fullest = table.fullest()?;
            table.evict(fullest);
        }
        table.next += 1;
        table.all += 1;
        table.unauthenticated += 1;
        let number = table.next;
        let evicted = Arc::new(Notify::new());
        let held = table.sources.entry(source).or_default();
        held.all += 1;
        held.unauthenticated.insert(number, Arc::clone(&evicted));
        Some(Arc::new(Seat {
            registry: Arc::clone(registry),
            source,
            number,
            evicted,
            authenticated: AtomicBool::new(false),
        }))
    }
}

impl Table {
    /// Returns the source with most connections that did not authenticate.
    fn fullest(&self) -> Option<Source> {
        let some = self
            .sources
            .iter()
            .filter(|(_, held)| !held.unauthenticated.is_empty());
        let most = some.max_by_key(|(source, held)| (held.unauthenticated.len(), **source));
        most.map(|(source, _)| *source)
    }

    /// Ends the oldest connection of the source that did not authenticate. Its place is free from now on, although
    /// its task may take a moment to end.
    fn evict(&mut self, source: Source) -> bool {
        let Some(held) = self.sources.get_mut(&source) else {
            return false;
        };
        let Some((_, evicted)) = held.unauthenticated.pop_first() else {
            return false;
        };
        evicted.notify_one();
        held.all -= 1;
        self.all -= 1;
        self.unauthenticated -= 1;
        if held.all == 0 {
            self.sources.remove(&source);
        }
        true
    }
}

impl Seat {
    /// Notes that a request on the connection was authenticated.
    pub(in crate::api) fn authenticate(&self) {
        if self.authenticated.swap(true, Ordering::AcqRel) {
            return;
        }
        let table = &mut *self.registry.table();
        if let Some(held) = table.sources.get_mut(&self.source)
            && held.unauthenticated.remove(&self.number).is_some()
        {
            table.unauthenticated -= 1;
        } else {
            // It was evicted in the same moment, and has no place any more that it could give back.
            self.authenticated.store(false, Ordering::Release);
        }
    }

    /// Says whether a request on the connection was authenticated.
    pub(in crate::api) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Acquire)
    }

    /// Ends when another connection needs the place.
    pub(in crate::api) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    pub(in crate::api) const fn source(&self) -> Source {
        self.source
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let table = &mut *self.registry.table();
        let Some(held) = table.sources.get_mut(&self.source) else {
            return;
        };
        if held.unauthenticated.remove(&self.number).is_some() {
            table.unauthenticated -= 1;
        } else if !*self.authenticated.get_mut() {
            // Evicted: the place was given back then.
            return;
        }
        held.all -= 1;
        table.all -= 1;
        if held.all == 0 {
            table.sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        all: 8,
        of_source: 4,
        unauthenticated: 5,
        unauthenticated_of_source: 3,
    };

    fn source(last: u8) -> Source {
        Source::of_address([192, 0, 2, last].into())
    }

    fn is_evicted(seat: &Seat) -> bool {
        use std::{future::Future as _, pin::pin, task::Context};
        let mut context = Context::from_waker(std::task::Waker::noop());
        pin!(seat.evicted()).as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn a_source_that_does_not_authenticate_loses_its_oldest_connection_to_its_next() {
        let registry = Registry::new(LIMITS);
        let admit = || Registry::admit(&registry, source(1)).unwrap();
        let seats = [admit(), admit(), admit()];
        assert!(!seats.iter().any(|seat| is_evicted(seat)));
        let _fourth = admit();
        assert!(is_evicted(&seats[0]) && !is_evicted(&seats[1]));
        assert_eq!(registry.table().all, 3);
    }

    #[test]
    fn newcomers_take_the_place_of_the_source_that_has_most() {
        let registry = Registry::new(LIMITS);
        let greedy = [1, 1, 1, 2, 2].map(|n| Registry::admit(&registry, source(n)).unwrap());
        let newcomer = Registry::admit(&registry, source(3)).unwrap();
        assert!(is_evicted(&greedy[0]));
        assert!(!greedy[1..].iter().any(|seat| is_evicted(seat)));
        newcomer.authenticate();
        assert_eq!(registry.table().unauthenticated, 4);
    }

    #[test]
    fn connections_that_authenticated_are_never_evicted() {
        let registry = Registry::new(LIMITS);
        let mut seats = Vec::new();
        for number in 0..8 {
            let seat = Registry::admit(&registry, source(number)).unwrap();
            seat.authenticate();
            seats.push(seat);
        }
        // All places are taken by those who may have them.
        assert!(Registry::admit(&registry, source(9)).is_none());
        assert!(!seats.iter().any(|seat| is_evicted(seat)));
        seats.pop();
        assert!(Registry::admit(&registry, source(9)).is_some());
        let full: Vec<_> = (0..3)
            .map_while(|_| {
                let seat = Registry::admit(&registry, source(0))?;
                seat.authenticate();
                Some(seat)
            })
            .collect();
        assert_eq!(full.len(), 1, "eight in all");
    }

    #[test]
    fn what_is_given_back_leaves_nothing_behind() {
        let registry = Registry::new(LIMITS);
        let mut seats: Vec<_> = (0..20)
            .filter_map(|n| Registry::admit(&registry, source(n % 3)))
            .collect();
        // A connection that is evicted while it authenticates.
        seats.iter().for_each(|seat| seat.authenticate());
        seats.clear();
        let table = registry.table();
        assert_eq!(
            (table.all, table.unauthenticated, table.sources.len()),
            (0, 0, 0)
        );
    }
}
