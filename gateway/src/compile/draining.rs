//! Draining SNAT addresses: no service has them any more, but open flows still use them. The gateway goes on answering
//! for them, since servers would otherwise lose the flows' MAC address. No new flow gets one. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use gateway_common::maps::{AddressKey, LocalAddress};

use crate::{
    compile::{compile_cache::Delta, map_snapshot::MapSnapshot, observed::Observed},
    model::{Network, Reference, State, address::AddressRange},
};

/// Maximum number of draining addresses. The map of local addresses has room for this many beside those of objects.
const MAX_DRAINING: usize = 16_384;

/// Number of collections of flows that must find no flow of an address. The first may have begun while a packet was
/// opening a flow.
const IDLE_COLLECTIONS: u32 = 2;

/// Draining addresses, with the number of collections in a row that found no flow of each.
#[derive(Debug, Default)]
pub struct Draining(BTreeMap<AddressKey, u32>);

impl Draining {
    /// Returns true if no address drains.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the draining addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &AddressKey> {
        self.0.keys()
    }

    /// Returns true if the address drains.
    #[must_use]
    pub fn contains(&self, key: &AddressKey) -> bool {
        self.0.contains_key(key)
    }

    /// Keeps the SNAT addresses that a delta would remove, and ends the draining of addresses that something else has
    /// got: an object, a server, or the host.
    pub fn keep(
        &mut self,
        state: &State,
        observed: &Observed,
        current: &MapSnapshot,
        delta: &mut Delta,
    ) {
        let Delta { old, new } = delta;
        let removed = old.addresses.iter().filter(|(key, address)| {
            address.kind == LocalAddress::NAT && !new.addresses.contains_key(key)
        });
        for (key, _) in removed {
            if self.0.len() < MAX_DRAINING {
                self.0.entry(*key).or_default();
            }
        }
        if self.0.is_empty() {
            return;
        }
        let networks = state.networks.iter();
        let networks: HashMap<u32, (&Reference, &Network)> = networks
            .map(|(reference, record)| (record.object.number, (reference, &record.object)))
            .collect();
        self.0.retain(|key, _| {
            if new.addresses.contains_key(key) {
                return false;
            }
            let Some(value) = current.addresses.get(key) else {
                return false;
            };
            old.addresses.insert(*key, *value);
            let network = networks.get(&key.network);
            let stays = network.is_some_and(|(reference, network)| {
                is_free(state, observed, (reference, network), key.address.into())
            });
            if stays {
                new.addresses.insert(*key, *value);
            }
            stays
        });
    }

    /// Records a collection of flows that began while the addresses `at_start` drained, and returns those that no flow
    /// uses any more.
    pub fn record_collection(
        &mut self,
        at_start: &[AddressKey],
        is_used: impl Fn(&AddressKey) -> bool,
    ) -> Vec<AddressKey> {
        let mut drained = Vec::new();
        for key in at_start {
            let Some(idle) = self.0.get_mut(key) else {
                continue;
            };
            *idle = if is_used(key) { 0 } else { *idle + 1 };
            if *idle >= IDLE_COLLECTIONS {
                drained.push(*key);
            }
        }
        drained
    }

    /// Ends the draining of addresses, and returns the delta that removes them from the maps.
    pub fn end(&mut self, keys: &[AddressKey], current: &MapSnapshot) -> Delta {
        let mut delta = Delta::default();
        for key in keys {
            if self.0.remove(key).is_some()
                && let Some(value) = current.addresses.get(key)
            {
                delta.old.addresses.insert(*key, *value);
            }
        }
        delta
    }
}

/// Returns true if no server, and not the host, has the address in the network.
fn is_free(
    state: &State,
    observed: &Observed,
    (reference, network): (&Reference, &Network),
    address: IpAddr,
) -> bool {
    let occupancy = state.occupancy(reference);
    let mut backends = occupancy.backends_in(AddressRange::one(address));
    backends.next().is_none()
        && !network.routers.contains(&address)
        && observed
            .host
            .conflict(state, reference, network, address)
            .is_none()
}
