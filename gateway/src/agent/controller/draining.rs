//! Draining SNAT addresses: when they begin to drain, and when the last flow has ended.

use std::{collections::HashMap, net::IpAddr};

use anyhow::Result;
use gateway_common::{IpAddress, maps::AddressKey, packet::Mac};
use log::{debug, warn};

use crate::{
    address_conflict::{ClaimKind, Claims, NetworkAddress, claims_of_state},
    agent::{
        controller::{Controller, Datapath},
        flow_gc::{GcReport, GcSnapshot},
    },
    compile::plan::plan,
    model::Reference,
};

impl Controller {
    /// Returns the addresses that objects claim or that drain.
    pub(super) fn all_claims(&self) -> Claims {
        let mut claims = claims_of_state(&self.desired.state);
        for key in self.draining_claims() {
            claims.entry(key).or_insert(ClaimKind::Snat);
        }
        claims
    }

    /// Returns the draining addresses of a network with their number of flows at the last collection.
    pub fn draining_addresses(&self, network: u32) -> impl Iterator<Item = (IpAddr, u64)> {
        let keys = self.datapath.draining.addresses();
        keys.filter(move |key| key.network == network).map(|key| {
            let address = IpAddr::from(key.address);
            let usage = self.observed.snat_usage.get(&(key.network, address));
            (address, usage.map_or(0, |usage| usage.flows))
        })
    }

    fn draining_claims(&self) -> Vec<NetworkAddress> {
        if self.datapath.draining.is_empty() {
            return Vec::new();
        }
        let networks = self.desired.state.networks.iter();
        let names: HashMap<u32, &Reference> = networks
            .map(|(reference, record)| (record.object.number, reference))
            .collect();
        let keys = self.datapath.draining.addresses();
        let named = keys.filter_map(|key| {
            let network = names.get(&key.network)?;
            Some(((*network).clone(), IpAddr::from(key.address)))
        });
        named.collect()
    }

    /// Returns the key of a draining address.
    fn draining_key(&self, (network, address): &NetworkAddress) -> Option<AddressKey> {
        let network = self.desired.state.networks.get(network)?.object.number;
        let address = IpAddress::from(*address);
        let key = AddressKey { network, address };
        self.datapath.draining.contains(&key).then_some(key)
    }

    /// Updates the claims after a reconciliation: addresses that left their service stay claimed while they drain, and a
    /// new agent finds addresses that drained before.
    pub(super) fn update_draining_claims(&mut self) {
        for key in std::mem::take(&mut self.observed.leaving_addresses) {
            let (network, address) = &key;
            let occupancy = self.desired.state.occupancy(network);
            let is_in_use = occupancy.endpoint_at(*address).is_some()
                || occupancy.nat_range_at(*address).is_some();
            if is_in_use {
                continue;
            }
            if self.draining_key(&key).is_some() {
                debug!("snat: address drains address={address} network={network}");
            } else {
                self.observed.conflict_detector.remove(&key);
            }
        }
        let claims = self.draining_claims().into_iter();
        let unknown: Claims = claims
            .filter(|key| self.observed.conflict_detector.status(key).is_none())
            .map(|key| (key, ClaimKind::Snat))
            .collect();
        self.observed.conflict_detector.adopt_in_use(unknown);
    }

    /// Ends the draining of addresses that no flow uses any more, after a collection of flows.
    pub(super) fn release_drained(
        &mut self,
        snapshot: &GcSnapshot,
        report: &GcReport,
    ) -> Result<()> {
        let is_used = |key: &AddressKey| report.snat.contains_key(&(key.network, key.address));
        let draining = &mut self.datapath.draining;
        let drained = draining.record_collection(snapshot.draining(), is_used);
        self.end_draining(&drained)
    }

    /// Gives up a draining address that another host claims. Returns true if the address was draining.
    ///
    /// # Errors
    /// When the kernel refuses to remove the address from the maps.
    pub(in crate::agent) fn give_up_draining(
        &mut self,
        claim: &NetworkAddress,
        mac: Mac,
    ) -> Result<bool> {
        let Some(key) = self.draining_key(claim) else {
            return Ok(false);
        };
        let (network, address) = claim;
        warn!(
            "snat: draining address given up, another host uses it address={address} \
             network={network} mac={mac}"
        );
        self.end_draining(&[key])?;
        Ok(true)
    }

    fn end_draining(&mut self, keys: &[AddressKey]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let before = self.draining_claims();
        self.datapath.end_draining(keys)?;
        for claim in before {
            if self.draining_key(&claim).is_none() {
                let (network, address) = &claim;
                debug!("snat: address released address={address} network={network}");
                self.observed.conflict_detector.remove(&claim);
            }
        }
        Ok(())
    }
}

impl Datapath {
    fn end_draining(&mut self, keys: &[AddressKey]) -> Result<()> {
        // A failure leaves the addresses in the maps. Compiling everything finds them there.
        let needs_full_resync = std::mem::replace(&mut self.needs_full_resync, true);
        let delta = self.draining.end(keys, &self.map_snapshot);
        self.apply(&plan(&delta.old, &delta.new), &delta)?;
        self.needs_full_resync = needs_full_resync;
        Ok(())
    }
}
