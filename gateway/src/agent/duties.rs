//! What the agent does from time to time: accounts for what connections use, and looks after
//! endpoints' addresses.

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

/// From this share of a source NAT address's ports on its users are warned, in percent.
const SCARCE_PORTS_PERCENT: u64 = 80;

/// Whether so many ports in use are a reason for a warning.
#[must_use]
pub const fn are_snat_ports_scarce(used: SnatUsage) -> bool {
    used.ports * 100 >= SOURCE_PORT_COUNT as u64 * SCARCE_PORTS_PERCENT
}

impl Controller {
    /// Takes in what was found when the flows were gone through.
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
            // What was opened and closed meanwhile is in the new number only.
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
                    "source NAT address {address} has {} of {} ports in use towards one server: \
                     give its service more addresses",
                    used.ports, SOURCE_PORT_COUNT
                );
            } else if are_snat_ports_scarce(before) && !are_snat_ports_scarce(*used) {
                info!("source NAT address {address} has enough free ports again");
            }
        }
        let used = report.snat.into_iter();
        self.snat_usage = used
            .map(|((network, address), used)| ((network, IpAddr::from(address)), used))
            .collect();
        Ok(())
    }

    /// Looks after endpoints' addresses; returned are the frames to be sent, and the interfaces.
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

    /// Takes in which stations the data path has seen using addresses of ours.
    fn read_conflicts(&mut self, now: Instant) -> Result<()> {
        let conflicts = self
            .maps
            .conflicts()
            .context("could not read map CONFLICTS")?;
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
        // Our own probe, come round by another interface into the same network.
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
                "{address} in {network} is in use by station {mac}, so its endpoint is not \
                 reachable: take another address, or take that one off the station"
            ),
            Some(ClaimStatus::Disputed(_)) => warn!(
                "station {mac} claims {address} in {network}, which is an endpoint's: it is \
                 defended"
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
