//! Invariants of the addresses that objects use in one network.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
};

use crate::model::{Object, Reference, address::AddressRange, invariants::Violation};

/// Addresses that objects use in one network, with the objects.
#[derive(Default)]
pub(super) struct NetworkMembers<'a> {
    endpoints: Vec<(IpAddr, &'a Object)>,
    ranges: Vec<(AddressRange, &'a Object)>,
    backends: HashMap<IpAddr, &'a Object>,
}

impl NetworkMembers<'_> {
    /// Checks that no address has two uses. Several services may have the same backend.
    pub(super) fn check(&mut self) -> Result<(), Violation> {
        let conflict = |object: &Object, address: &dyn fmt::Display, other: &Object| {
            Violation::new(
                object,
                format!("{address} is an address of {} too", other.key()),
            )
        };
        self.ranges.sort_by_key(|(range, _)| range.ends());
        for pair in self.ranges.windows(2) {
            if let [(first, one), (second, other)] = pair
                && first.overlaps(*second)
            {
                return Err(conflict(other, second, one));
            }
        }
        for (address, backend) in &self.backends {
            if let Some(service) = self.range_containing(*address) {
                return Err(conflict(service, address, backend));
            }
        }
        let mut addresses = HashMap::new();
        for (address, endpoint) in &self.endpoints {
            let other = addresses.insert(*address, *endpoint);
            let other = other
                .or_else(|| self.backends.get(address).copied())
                .or_else(|| self.range_containing(*address));
            if let Some(other) = other {
                return Err(conflict(endpoint, address, other));
            }
        }
        Ok(())
    }

    /// Returns the service whose SNAT ranges contain the address. The ranges must be sorted and disjoint.
    fn range_containing(&self, address: IpAddr) -> Option<&Object> {
        let after = self
            .ranges
            .partition_point(|(range, _)| range.ends().0 <= address);
        let (range, service) = self.ranges.get(after.checked_sub(1)?)?;
        range.contains(address).then_some(*service)
    }
}

/// Records the addresses that the object uses in its network.
pub(super) fn add_member<'a>(
    object: &'a Object,
    members: &mut BTreeMap<Reference, NetworkMembers<'a>>,
) {
    match object {
        Object::Service(_, record) => {
            let spec = &record.object.spec;
            let reference = Reference::new(object.tenant().clone(), spec.network.clone());
            let members = members.entry(reference).or_default();
            let ranges = spec.nat_addresses.iter();
            members.ranges.extend(ranges.map(|range| (*range, object)));
            for backend in spec.resources.iter().flat_map(|r| &r.backends) {
                members.backends.insert(backend.address, object);
            }
        }
        Object::Endpoint(_, record) => {
            let endpoint = &record.object;
            let reference = Reference::new(object.tenant().clone(), endpoint.network.clone());
            let members = members.entry(reference).or_default();
            let addresses = endpoint.addresses.iter();
            members
                .endpoints
                .extend(addresses.map(|address| (*address, object)));
        }
        _ => {}
    }
}
