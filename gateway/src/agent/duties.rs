//! Periodic work of the controller: accounting of flows and SNAT ports, and steps of address conflict detection.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use anyhow::{Context as _, Result};
use gateway_common::{maps::AddressKey, packet::Mac, pipeline::SOURCE_PORT_COUNT};
use log::{info, warn};

use crate::{
    address_conflict::{Action, ClaimStatus, NetworkAddress},
    agent::{
        controller::Controller,
        tasks::flow_gc::{GcReport, GcSnapshot, SnatUsage},
    },
    inject::frames,
    model::Reference,
};

/// Share of a SNAT address's ports in use, in percent, from which a warning is given.
const SCARCE_PORTS_PERCENT: u64 = 80;

/// Returns true if the usage of a SNAT address is a reason for a warning.
#[must_use]
pub const fn are_snat_ports_scarce(used: SnatUsage) -> bool {
    used.ports * 100 >= SOURCE_PORT_COUNT as u64 * SCARCE_PORTS_PERCENT
}

impl Controller {
    /// Corrects the data path's flow counts by the report of flow GC, and records the usage of SNAT addresses.
    pub(super) fn account_usage(&mut self, snapshot: &GcSnapshot, report: GcReport) -> Result<()> {
        if !report.needs_recheck {
            self.drop_departed(snapshot.departed_backends());
        }
        for slot in snapshot.slots_with_flows(&report) {
            let before = snapshot.flow_count(slot);
            let counted = report.flows.get(&slot).copied().unwrap_or(0);
            if counted == before {
                continue;
            }
            // Flows that were opened or closed during the collection are in the new count only.
            let mut usage = self.maps.usage(slot)?;
            let flows = (counted + usage.flows).saturating_sub(before);
            if flows != usage.flows {
                usage.flows = flows;
                self.maps.set_usage(slot, usage)?;
            }
        }
        for (key, used) in &report.snat {
            let (network, address) = (key.0, IpAddr::from(key.1));
            let before = self.snat_usage.get(&(network, address));
            let before = before.copied().unwrap_or_default();
            if are_snat_ports_scarce(*used) && !are_snat_ports_scarce(before) {
                warn!(
                    "snat: ports scarce address={address} ports_in_use={} ports={SOURCE_PORT_COUNT}: give \
                     its service more SNAT addresses",
                    used.ports
                );
            } else if are_snat_ports_scarce(before) && !are_snat_ports_scarce(*used) {
                info!("snat: ports no longer scarce address={address}");
            }
        }
        let used = report.snat.into_iter();
        self.snat_usage = used
            .map(|((network, address), used)| ((network, IpAddr::from(address)), used))
            .collect();
        Ok(())
    }

    /// Advances address conflict detection, and reconciles. Returns the frames to be sent, with their interfaces.
    pub(super) fn step_conflict_detection(&mut self, now: Instant) -> Result<Vec<(u32, Vec<u8>)>> {
        self.read_conflicts(now)?;
        let (state, observed) = (&self.state, &self.observed);
        let reachable = |network: &Reference| {
            state.networks.get(network).is_some_and(|record| {
                let mut attachments = record.object.attachments.iter();
                attachments.any(|a| observed.interfaces.contains_key(&a.interface))
            })
        };
        let actions = self.conflict_detector.step(now, reachable);
        self.reconcile()?;
        let mut sent = Vec::new();
        for action in actions {
            let (Action::Probe((network, address)) | Action::Announce((network, address))) =
                &action;
            let Some(record) = self.state.networks.get(network) else {
                continue;
            };
            for attachment in &record.object.attachments {
                let Some(interface) = self.observed().interfaces.get(&attachment.interface) else {
                    continue;
                };
                let frame = match action {
                    Action::Probe(_) => frames::probe(interface.mac, *address),
                    Action::Announce(_) => frames::announcement(interface.mac, *address),
                };
                sent.push((interface.ifindex, frame));
            }
        }
        Ok(sent)
    }

    /// Reads and deletes the conflicts that the data path recorded: other hosts that use local addresses.
    fn read_conflicts(&mut self, now: Instant) -> Result<()> {
        let conflicts = self
            .maps
            .conflicts()
            .context("failed to read map CONFLICTS")?;
        if conflicts.is_empty() {
            return Ok(());
        }
        let names: BTreeMap<u32, Reference> = self
            .state
            .networks
            .iter()
            .map(|(reference, record)| (record.object.number, reference.clone()))
            .collect();
        for (key, conflict) in conflicts {
            self.maps.delete_conflict(&key)?;
            let AddressKey { network, address } = key;
            if let Some(network) = names.get(&network) {
                self.report_conflict((network.clone(), address.into()), conflict.mac, now);
            }
        }
        Ok(())
    }

    fn report_conflict(&mut self, key: NetworkAddress, mac: Mac, now: Instant) {
        // The agent's own probe, received through another interface of the same network.
        let mut interfaces = self.observed().interfaces.values();
        if interfaces.any(|interface| interface.mac == mac) {
            return;
        }
        let before = self.conflict_detector.status(&key);
        self.conflict_detector.on_conflict(&key, mac, now);
        let (network, address) = &key;
        match self.conflict_detector.status(&key) {
            after if after == before => {}
            Some(ClaimStatus::Conflict(_)) => warn!(
                "address conflict: address in use by another host address={address} network={network} \
                 mac={mac}: remove the address from that host, or give the endpoint another one; it is \
                 not reachable until then"
            ),
            Some(ClaimStatus::Disputed(_)) => warn!(
                "address conflict: another host claims an endpoint's address, which is defended \
                 address={address} network={network} mac={mac}"
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snat_ports_are_scarce_from_eighty_percent() {
        let used = |ports| SnatUsage {
            flows: ports,
            ports,
        };
        assert!(!are_snat_ports_scarce(used(0)) && !are_snat_ports_scarce(used(51_609)));
        assert!(are_snat_ports_scarce(used(51_610)) && are_snat_ports_scarce(used(64_512)));
    }
}
