//! What the agent does from time to time: accounts for what connections use, and looks after
//! endpoints' addresses.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use anyhow::{Context as _, Result};
use gateway_common::{maps::AddressKey, packet::Mac, stages::SOURCE_PORTS};
use log::{info, warn};

use crate::{
    agent::{
        core::Core,
        detection::{Action, Key, Standing},
        sweep::{NatUse, Snapshot, Swept},
    },
    model::Reference,
    wire::frames,
};

/// From this share of a source NAT address's ports on its users are warned, in percent.
const WARN_AT: u64 = 80;

/// Whether so many ports in use are a reason for a warning.
#[must_use]
pub const fn is_scarce(used: NatUse) -> bool {
    used.ports * 100 >= SOURCE_PORTS as u64 * WARN_AT
}

impl Core {
    /// Takes in what was found when the flows were gone through.
    pub(super) fn account(&mut self, snapshot: &Snapshot, swept: Swept) -> Result<()> {
        if !swept.again {
            self.forget_backends(snapshot.left());
        }
        for slot in snapshot.slots(&swept) {
            let before = snapshot.flows(slot);
            let counted = swept.flows.get(&slot).copied().unwrap_or(0);
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
        for (place, used) in &swept.nat {
            let (network, address) = (place.0, IpAddr::from(place.1));
            let before = self.nat_use.get(&(network, address));
            let before = before.copied().unwrap_or_default();
            if is_scarce(*used) && !is_scarce(before) {
                warn!(
                    "source NAT address {address} has {} of {} ports in use towards one server: \
                     give its service more addresses",
                    used.ports, SOURCE_PORTS
                );
            } else if is_scarce(before) && !is_scarce(*used) {
                info!("source NAT address {address} has enough free ports again");
            }
        }
        let used = swept.nat.into_iter();
        self.nat_use = used
            .map(|((network, address), used)| ((network, IpAddr::from(address)), used))
            .collect();
        Ok(())
    }

    /// Looks after endpoints' addresses; returned are the frames to be sent, and the interfaces.
    pub(super) fn detect(&mut self, now: Instant) -> Result<Vec<(u32, Vec<u8>)>> {
        self.take_in_conflicts(now)?;
        let (state, observed) = (&self.state, &self.observed);
        let reachable = |network: &Reference| {
            state.networks.get(network).is_some_and(|record| {
                let mut attachments = record.object.attachments.iter();
                attachments.any(|a| observed.interfaces.contains_key(&a.interface))
            })
        };
        let actions = self.detection.step(now, reachable);
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
    fn take_in_conflicts(&mut self, now: Instant) -> Result<()> {
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
            self.maps.forget_conflict(&key)?;
            let AddressKey { network, address } = key;
            if let Some(network) = names.get(&network) {
                self.contend((network.clone(), address.into()), conflict.mac, now);
            }
        }
        Ok(())
    }

    fn contend(&mut self, key: Key, station: Mac, now: Instant) {
        // Our own probe, come round by another interface into the same network.
        let mut interfaces = self.observed().interfaces.values();
        if interfaces.any(|interface| interface.mac == station) {
            return;
        }
        let before = self.detection.standing(&key);
        self.detection.rival(&key, station, now);
        let (network, address) = &key;
        match self.detection.standing(&key) {
            after if after == before => {}
            Some(Standing::Conflict(_)) => warn!(
                "{address} in {network} is in use by station {station}, so its endpoint is not \
                 reachable: take another address, or take that one off the station"
            ),
            Some(Standing::Disputed(_)) => warn!(
                "station {station} claims {address} in {network}, which is an endpoint's: it is \
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
    fn scarce_is_four_of_five() {
        let used = |ports| NatUse {
            flows: ports,
            ports,
        };
        assert!(!is_scarce(used(0)) && !is_scarce(used(51_609)));
        assert!(is_scarce(used(51_610)) && is_scarce(used(64_512)));
    }
}
