//! Address probe: advances address conflict detection, and sends its probes and announcements (RFC 5227).

use std::{
    collections::BTreeMap,
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use gateway_common::{maps::AddressKey, packet::Mac};
use log::warn;
use tokio::time::sleep;

use crate::{
    address_conflict::{
        BACKLOG_INTERVAL, ClaimStatus, ConflictAction, ConflictEvidence, NetworkAddress,
    },
    agent::{Agent, OutgoingFrame, controller::Controller},
    config::ProbeConfig,
    inject::frames,
    log_limit::LogLimit,
    model::Reference,
};

/// Upper bound of the interval at which address conflicts are read from the data path.
const MAX_PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>, config: ProbeConfig) {
    let interval = config.interval.min(MAX_PROBE_INTERVAL);
    loop {
        let (frames, has_backlog) = {
            let mut controller = agent.controller.lock().await;
            let frames = tokio::task::block_in_place(|| step(&mut controller, Instant::now()));
            (frames, controller.observed.conflict_detector.has_backlog())
        };
        match frames {
            Ok(frames) => agent.send_frames(&frames),
            Err(error) => warn!("address conflict: detection failed error=\"{error:#}\""),
        }
        sleep(if has_backlog {
            BACKLOG_INTERVAL.min(interval)
        } else {
            interval
        })
        .await;
    }
}

/// Advances conflict detection, and reconciles. Returns the frames to be sent.
fn step(controller: &mut Controller, now: Instant) -> Result<Vec<OutgoingFrame>> {
    read_conflicts(controller, now)?;
    let (state, observed) = (&controller.desired.state, &mut controller.observed);
    let interfaces = &observed.compiled.interfaces;
    let reachable = |network: &Reference| {
        state.networks.get(network).is_some_and(|record| {
            let mut attachments = record.object.attachments.iter();
            attachments.any(|a| {
                let interface = interfaces.get(&a.interface);
                interface.is_some_and(|interface| interface.has_carrier)
            })
        })
    };
    let actions = observed.conflict_detector.step(now, reachable);
    controller.reconcile()?;
    let frames = actions
        .iter()
        .flat_map(|action| frames_of(controller, action));
    Ok(frames.collect())
}

/// Returns the frames of an action, one for each interface of the network.
fn frames_of(controller: &Controller, action: &ConflictAction) -> Vec<OutgoingFrame> {
    let (ConflictAction::Probe((network, address)) | ConflictAction::Announce((network, address))) =
        action;
    let Some(record) = controller.state().networks.get(network) else {
        return Vec::new();
    };
    let interfaces = record.object.attachments.iter();
    let interfaces = interfaces.filter_map(|a| controller.observed().interfaces.get(&a.interface));
    interfaces
        .filter(|interface| interface.has_carrier)
        .map(|interface| {
            let frame = match action {
                ConflictAction::Probe(_) => frames::probe(interface.mac, *address),
                ConflictAction::Announce(_) => frames::announcement(interface.mac, *address),
            };
            (interface.ifindex, frame)
        })
        .collect()
}

/// Reads and deletes the conflicts that the data path recorded: other hosts that use local addresses.
fn read_conflicts(controller: &mut Controller, now: Instant) -> Result<()> {
    let maps = &mut controller.datapath.maps;
    let conflicts = maps.conflicts().context("failed to read map CONFLICTS")?;
    if conflicts.is_empty() {
        return Ok(());
    }
    let networks = controller.desired.state.networks.iter();
    let names: BTreeMap<u32, Reference> = networks
        .map(|(reference, record)| (record.object.number, reference.clone()))
        .collect();
    for (key, conflict) in conflicts {
        controller.datapath.maps.delete_conflict(&key)?;
        let AddressKey { network, address } = key;
        if let Some(network) = names.get(&network) {
            let key = (network.clone(), address.into());
            let evidence = if conflict.is_probe == 0 {
                ConflictEvidence::Use
            } else {
                ConflictEvidence::Probe
            };
            on_conflict(controller, &key, (conflict.mac, evidence), now)?;
        }
    }
    Ok(())
}

/// Records another host that uses an address, and logs it if that is new.
fn on_conflict(
    controller: &mut Controller,
    key: &NetworkAddress,
    (mac, evidence): (Mac, ConflictEvidence),
    now: Instant,
) -> Result<()> {
    // The agent's own probe, received through another interface of the same network.
    let mut interfaces = controller.observed().interfaces.values();
    if interfaces.any(|interface| interface.mac == mac) {
        return Ok(());
    }
    if controller.give_up_draining(key, mac)? {
        return Ok(());
    }
    let detector = &mut controller.observed.conflict_detector;
    let before = detector.status(key);
    detector.on_conflict(key, mac, evidence, now);
    let after = detector.status(key);
    if kind(after) == kind(before) {
        return Ok(());
    }
    let (network, address) = key;
    match after {
        Some(ClaimStatus::Conflict(_)) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(suppressed) = LIMIT.admit() {
                warn!(
                    "address conflict: address in use by another host address={address} network={network} \
                     mac={mac}{suppressed}: remove the address from that host, or give the endpoint or service \
                     another one; it is not used until then"
                );
            }
        }
        Some(ClaimStatus::Disputed(_)) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(suppressed) = LIMIT.admit() {
                warn!(
                    "address conflict: another host claims an address in use, which is defended address={address} \
                     network={network} mac={mac}{suppressed}"
                );
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns the kind of a status, without the MAC address: a host can claim with another one in each frame, and that is
/// no news.
fn kind(status: Option<ClaimStatus>) -> Option<Discriminant<ClaimStatus>> {
    status.as_ref().map(discriminant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mac_address_is_no_other_kind() {
        let [first, second] = [1, 2].map(|last| Mac::new([2, 0, 0, 0, 0, last]));
        let disputed = |mac| kind(Some(ClaimStatus::Disputed(mac)));
        assert_eq!(disputed(first), disputed(second));
        assert_ne!(disputed(first), kind(Some(ClaimStatus::Conflict(first))));
        assert_ne!(disputed(first), kind(Some(ClaimStatus::InUse)));
        assert_ne!(disputed(first), kind(None));
    }
}
