//! Where consumers and servers are of different families. Pure.

use std::collections::BTreeSet;

use crate::model::{Reference, State};

/// Where an endpoint's address and its backends are of different families.
#[derive(Default)]
pub(super) struct Mixed<'a> {
    /// Networks in which IPv4 is translated into IPv6.
    pub(super) networks: BTreeSet<Reference>,
    /// Services whose IPv4 servers are reached from IPv4 and from IPv6.
    pub(super) services: BTreeSet<&'a Reference>,
}

impl<'a> Mixed<'a> {
    /// Approved or not: an approval changes no more than it must.
    pub(super) fn of(state: &'a State) -> Self {
        let mut mixed = Self::default();
        for (reference, record) in &state.services {
            let (mut from_v4, mut from_v6) = (false, false);
            for (owner, endpoint) in state.endpoints_of_service(reference) {
                let endpoint = &endpoint.object;
                let spec = &record.object.spec;
                let backends = spec.resource(&endpoint.resource);
                let backend = backends.and_then(|resource| resource.backends.first());
                // With no backend left there may be flows of those that were.
                let v4 = backend.map_or_else(
                    || spec.nat_addresses.iter().all(|r| r.ends().0.is_ipv4()),
                    |backend| backend.address.is_ipv4(),
                );
                for address in &endpoint.addresses {
                    match (address.is_ipv4(), v4) {
                        (true, false) => {
                            let network =
                                Reference::new(owner.tenant.clone(), endpoint.network.clone());
                            mixed.networks.insert(network);
                        }
                        (false, true) => {
                            let network = record.object.spec.network.clone();
                            let network = Reference::new(reference.tenant.clone(), network);
                            mixed.networks.insert(network);
                            from_v6 = true;
                        }
                        (true, true) => from_v4 = true,
                        (false, false) => {}
                    }
                }
            }
            if from_v4 && from_v6 {
                mixed.services.insert(reference);
            }
        }
        mixed
    }
}
