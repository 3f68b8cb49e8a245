//! Index of the addresses that endpoints, backends and SNAT use in one network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

use crate::model::{Name, Reference, address::AddressRange, service::ServiceSpec};

/// Index of the addresses that objects use in one network, so that a conflict is found by look-ups rather than by a
/// scan of all services.
///
/// SNAT ranges of one network are disjoint: operations and invariants refuse others. The last range that starts at or
/// before an address is therefore the only one that can contain it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    endpoints: BTreeMap<IpAddr, Reference>,
    /// Backends, sorted by address first. All backends of a service share its reference, since a network can have very
    /// many backends.
    backends: BTreeSet<(IpAddr, Arc<Reference>)>,
    /// SNAT ranges by their first address.
    nat: BTreeMap<IpAddr, (AddressRange, Arc<Reference>)>,
}

/// Index of a network in which no object uses an address.
pub(super) static EMPTY: Occupancy = Occupancy {
    endpoints: BTreeMap::new(),
    backends: BTreeSet::new(),
    nat: BTreeMap::new(),
};

impl Occupancy {
    /// Returns the endpoint with the address.
    #[must_use]
    pub fn endpoint_at(&self, address: IpAddr) -> Option<&Reference> {
        count_visit();
        self.endpoints.get(&address)
    }

    /// Returns the lowest address of an endpoint in the range, with the endpoint.
    #[must_use]
    pub fn endpoint_in(&self, range: AddressRange) -> Option<(IpAddr, &Reference)> {
        count_visit();
        let (first, last) = range.ends();
        let mut found = self.endpoints.range(first..=last);
        found.next().map(|(address, endpoint)| (*address, endpoint))
    }

    /// Returns the SNAT range that contains the address, with its service.
    #[must_use]
    pub fn nat_range_at(&self, address: IpAddr) -> Option<(AddressRange, &Reference)> {
        self.nat_ranges_in(AddressRange::one(address)).next()
    }

    /// Returns the SNAT ranges that overlap the range, with their services, in descending order.
    pub fn nat_ranges_in(
        &self,
        range: AddressRange,
    ) -> impl Iterator<Item = (AddressRange, &Reference)> {
        self.nat
            .range(..=range.ends().1)
            .rev()
            .inspect(|_| count_visit())
            .take_while(move |(_, (found, _))| found.overlaps(range))
            .map(|(_, (found, service))| (*found, &**service))
    }

    /// Returns the SNAT addresses of the same family, beginning with the range that starts at or before the address and
    /// going on with those after it.
    pub fn nat_addresses_near(&self, address: IpAddr) -> impl Iterator<Item = IpAddr> {
        let before = self.nat.range(..=address).next_back();
        let after = self.nat.range((Bound::Excluded(address), Bound::Unbounded));
        before
            .into_iter()
            .chain(after)
            .inspect(|_| count_visit())
            .flat_map(|(_, (range, _))| range.iter())
            .filter(move |found| found.is_ipv4() == address.is_ipv4())
    }

    /// Returns the backends in the range, with their services, in ascending order of addresses.
    pub fn backends_in(&self, range: AddressRange) -> impl Iterator<Item = (IpAddr, &Reference)> {
        let (first, last) = range.ends();
        let lowest = Reference::new(Name::min(), Name::min());
        self.backends
            .range((first, Arc::new(lowest))..)
            .inspect(|_| count_visit())
            .take_while(move |(address, _)| *address <= last)
            .map(|(address, service)| (*address, &**service))
    }

    /// Returns true if no object uses an address.
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.backends.is_empty() && self.nat.is_empty()
    }

    pub(super) fn insert_service(&mut self, service: &Reference, spec: &ServiceSpec) {
        let service = Arc::new(service.clone());
        for range in &spec.nat_addresses {
            let old = self.nat.insert(range.ends().0, (*range, service.clone()));
            debug_assert!(old.is_none(), "SNAT ranges of {service} overlap");
        }
        let backends = spec.resources.iter().flat_map(|r| &r.backends);
        self.backends
            .extend(backends.map(|backend| (backend.address, service.clone())));
    }

    pub(super) fn remove_service(&mut self, service: &Reference, spec: &ServiceSpec) {
        for range in &spec.nat_addresses {
            self.nat.remove(&range.ends().0);
        }
        let service = Arc::new(service.clone());
        for backend in spec.resources.iter().flat_map(|r| &r.backends) {
            self.backends.remove(&(backend.address, service.clone()));
        }
    }

    pub(super) fn insert_endpoint(&mut self, endpoint: &Reference, addresses: &[IpAddr]) {
        let entries = addresses.iter().map(|address| (*address, endpoint.clone()));
        self.endpoints.extend(entries);
    }

    pub(super) fn remove_endpoint(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            self.endpoints.remove(address);
        }
    }
}

/// Counts a visited entry of an index, for tests of how the cost of an operation grows.
#[cfg(not(test))]
pub(super) const fn count_visit() {}

#[cfg(test)]
pub(super) fn count_visit() {
    visits::COUNT.with(|count| count.set(count.get() + 1));
}

#[cfg(test)]
pub(crate) mod visits {
    use std::cell::Cell;

    thread_local! {
        pub(super) static COUNT: Cell<u64> = const { Cell::new(0) };
    }

    /// Calls a function, and returns its result with the number of index entries that this thread visited meanwhile.
    pub(crate) fn during<T>(call: impl FnOnce() -> T) -> (T, u64) {
        let before = COUNT.get();
        let value = call();
        (value, COUNT.get() - before)
    }
}
