//! Addresses of the gateway's host, which no object may use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{Network, Reference, State, address::AddressRange};

/// Addresses of the host, with the names of the interfaces that have them.
///
/// No object may use such an address: the data path would answer for the address and keep its packets from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses(BTreeMap<IpAddr, BTreeSet<String>>);

impl FromIterator<(IpAddr, String)> for HostAddresses {
    fn from_iter<I: IntoIterator<Item = (IpAddr, String)>>(addresses: I) -> Self {
        let mut by_address: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        for (address, interface) in addresses {
            by_address.entry(address).or_default().insert(interface);
        }
        Self(by_address)
    }
}

impl HostAddresses {
    /// Returns the error message for an address in a network that the host has too, or none if the host does not have
    /// the address there. The message names the interface if it is attached to the network.
    ///
    /// An address on an interface of no network conflicts in every network, since the host answers for the address on
    /// every interface. An address on an interface of another network does not conflict: address spaces may overlap.
    #[must_use]
    pub fn conflict(
        &self,
        state: &State,
        reference: &Reference,
        network: &Network,
        address: IpAddr,
    ) -> Option<String> {
        let interfaces = self.0.get(&address)?;
        let is_attached = |name: &&String| {
            let mut attachments = network.attachments.iter();
            attachments.any(|attachment| attachment.interface == **name)
        };
        if let Some(name) = interfaces.iter().find(is_attached) {
            return Some(format!(
                "address {address} is the gateway host's own on {name}: choose another"
            ));
        }
        // The name of an interface outside of the network is not revealed to its tenant.
        let counts = |name: &String| {
            state
                .network_by_interface(name)
                .is_none_or(|owner| owner == reference)
        };
        interfaces
            .iter()
            .any(counts)
            .then(|| format!("address {address} is the gateway host's own: choose another"))
    }

    /// Returns the error message of [`Self::conflict`] for the first address of the range that conflicts.
    #[must_use]
    pub fn range_conflict(
        &self,
        state: &State,
        reference: &Reference,
        network: &Network,
        range: AddressRange,
    ) -> Option<String> {
        let mut addresses = self.addresses_in(range);
        addresses.find_map(|address| self.conflict(state, reference, network, address))
    }

    /// Returns the addresses of the range that the host has on any interface.
    pub fn addresses_in(&self, range: AddressRange) -> impl Iterator<Item = IpAddr> + '_ {
        let (first, last) = range.ends();
        self.0.range(first..=last).map(|(address, _)| *address)
    }

    /// Returns true if the host has the address on any interface.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// Returns true if the host has any address of the range on any interface.
    #[must_use]
    pub fn has_address_in(&self, range: AddressRange) -> bool {
        self.addresses_in(range).next().is_some()
    }

    /// Returns the addresses that only one of the two sets has, or that are on other interfaces in the other set.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let changed = |one: &Self, two: &Self| {
            let mut changed = one.0.clone();
            changed.retain(|address, interfaces| two.0.get(address) != Some(interfaces));
            changed
        };
        let mut all = changed(self, other);
        all.extend(changed(other, self));
        Self(all)
    }

    /// Returns true if the host has no addresses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns each address once, in ascending order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.keys().copied()
    }
}
