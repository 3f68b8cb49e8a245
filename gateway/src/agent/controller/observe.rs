//! Observed state: what tasks report to the controller.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use gateway_common::DropReason;
use jiff::Timestamp;
use log::warn;

use crate::{
    address_conflict::{ClaimKind, Claims, claims_of_endpoint, claims_of_service},
    agent::{
        controller::{Controller, Observations},
        drain::drained_backends,
    },
    compile::{
        dirty::DirtyObjects,
        observed::{BackendKey, HealthCheckKey, Interface, ObservedNextHop},
    },
    host::traffic::AttachmentTraffic,
    model::{Change, HostAddresses, Object, Reference, State},
};

impl Controller {
    /// Records the state of an interface; `None` if it can't carry packets.
    pub(in crate::agent) fn observe_interface(&mut self, name: &str, seen: Option<Interface>) {
        self.observed.compiled.observe_interface(
            name,
            seen,
            &self.desired.state,
            &mut self.datapath.dirty_objects,
        );
    }

    /// Records the host's own addresses.
    pub(in crate::agent) fn observe_host_addresses(&mut self, seen: HostAddresses) {
        let dirty_objects = &mut self.datapath.dirty_objects;
        let count_dirty = |dirty: &DirtyObjects| dirty.endpoints.len() + dirty.services.len();
        let before = count_dirty(dirty_objects);
        self.observed
            .compiled
            .observe_host_addresses(seen, &self.desired.state, dirty_objects);
        let dirty = count_dirty(dirty_objects) - before;
        if dirty > 0 {
            warn!(
                "host: addresses of tenants' objects added to or removed from the host services_and_endpoints={dirty}"
            );
        }
    }

    /// Records the next hop of a backend; `None` if it can't be reached.
    pub(in crate::agent) fn observe_next_hop(
        &mut self,
        key: &BackendKey,
        seen: Option<ObservedNextHop>,
    ) {
        self.observed.compiled.observe_next_hop(
            key,
            seen,
            &self.desired.state,
            &mut self.datapath.dirty_objects,
        );
    }

    /// Records the traffic of attachments' interfaces. `received` are the packets that all interfaces have received.
    /// Counts of interfaces that are no attachments any more are deleted.
    ///
    /// # Errors
    /// When the counters of drops can't be read.
    pub(in crate::agent) fn observe_traffic(
        &mut self,
        now: Timestamp,
        received: &BTreeMap<String, u64>,
    ) -> Result<()> {
        let mut drops = self.datapath.maps.attachment_drops()?;
        let is_first = self.observed.traffic.is_none();
        let traffic = self.observed.traffic.get_or_insert_default();
        let attachments = &self.observed.host.attachments;
        let links = attachments
            .iter()
            .filter_map(|(name, state)| Some((name, state.link.as_ref()?.ifindex)));
        let links: BTreeMap<&String, u32> = links.collect();
        traffic.retain(|name, traffic| links.get(name) == Some(&traffic.ifindex));
        for (name, ifindex) in links {
            let Some(received) = received.get(name).copied() else {
                continue;
            };
            let drops = drops.remove(&ifindex).unwrap_or_default();
            let watched = traffic.entry(name.clone()).or_insert_with(|| {
                // What the first reading finds was counted under an earlier agent. Counts of an interface that is
                // attached later begin at zero.
                let known = if is_first {
                    drops.clone()
                } else {
                    BTreeMap::new()
                };
                AttachmentTraffic::new(ifindex, now, received, known)
            });
            if let Some(frames) = watched.update(now, received, drops) {
                let reason = DropReason::TransmitFailed.name();
                warn!("host: frames lost interface={name} reason={reason} frames={frames}");
            }
        }
        for (ifindex, reasons) in drops {
            let maps = &mut self.datapath.maps;
            maps.delete_attachment_drops(ifindex, reasons.keys())?;
        }
        Ok(())
    }

    /// Records if a backend fails its health checks.
    pub(in crate::agent) fn observe_health(&mut self, key: &HealthCheckKey, unhealthy: bool) {
        self.observed
            .compiled
            .observe_health(key, unhealthy, &mut self.datapath.dirty_objects);
    }

    /// Records for the backends of changed services if their deadline has passed, so that the change is in force at
    /// once.
    pub(super) fn observe_drains(&mut self, services: &BTreeSet<Reference>, now: Timestamp) {
        if services.is_empty() {
            return;
        }
        let passed = drained_backends(&self.desired.state, services, now);
        let before = self.observed.compiled.drained.iter();
        let before = before.filter(|key| services.contains(&key.0) && !passed.contains(key));
        for key in before.cloned().collect::<Vec<_>>() {
            self.observe_drained(&key, false);
        }
        for key in &passed {
            self.observe_drained(key, true);
        }
    }

    /// Records if the deadline of a draining backend has passed.
    pub(in crate::agent) fn observe_drained(&mut self, key: &HealthCheckKey, drained: bool) {
        self.observed
            .compiled
            .observe_drained(key, drained, &mut self.datapath.dirty_objects);
    }
}

impl Observations {
    /// Makes the addresses of a network known again, after its interface came back or changed.
    pub(in crate::agent) fn announce_network(&mut self, network: &Reference) {
        self.conflict_detector.reannounce(network);
        self.returned_networks.insert(network.clone());
    }

    /// Adds and removes addresses for conflict detection. `state` is the one before the changes.
    ///
    /// An address that passes from one object to another stays claimed, whatever the order of their changes.
    pub(super) fn track_addresses(&mut self, state: &State, changes: &[Change]) {
        let claimed: Claims = changes.iter().flat_map(claims_after).collect();
        for change in changes {
            let object = change.object();
            let reference = object.reference();
            let before = match object {
                Object::Network(_, record) => {
                    let before = state.networks.get(&reference);
                    let same = before.is_some_and(|before| {
                        before.object.attachments == record.object.attachments
                    });
                    // The network may have another interface now.
                    self.conflict_detector.retry_parked(&reference);
                    if !same {
                        self.announce_network(&reference);
                    }
                    continue;
                }
                Object::Service(tenant, _) => {
                    let before = state.services.get(&reference);
                    before.map(|record| claims_of_service(tenant, &record.object))
                }
                Object::Endpoint(tenant, _) => {
                    let before = state.endpoints.get(&reference);
                    before.map(|record| claims_of_endpoint(tenant, &record.object))
                }
                _ => continue,
            };
            let now = claims_after(change);
            for (key, kind) in before.unwrap_or_default() {
                if claimed.contains_key(&key) {
                    continue;
                }
                if kind == ClaimKind::Snat && self.conflict_detector.is_claimed(&key) {
                    // Open flows may still use the address.
                    self.leaving_addresses.push(key);
                } else {
                    self.conflict_detector.remove(&key);
                }
            }
            for (key, kind) in now {
                self.conflict_detector.add(key, kind);
            }
        }
    }
}

/// Returns the addresses that the object of a change claims after it.
fn claims_after(change: &Change) -> Claims {
    match change {
        Change::Put(Object::Service(tenant, record)) => claims_of_service(tenant, &record.object),
        Change::Put(Object::Endpoint(tenant, record)) => claims_of_endpoint(tenant, &record.object),
        Change::Put(_) | Change::Delete(_) => Claims::new(),
    }
}
