//! Read access to the controller, for the API and the tasks.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;
use jiff::Timestamp;
use log::warn;
use tokio::sync::Notify;

use crate::{
    address_conflict::{ClaimStatus, NetworkAddress},
    agent::{
        controller::Controller,
        flow_gc::GcSnapshot,
        status::{FlowTableStatus, SnatUsage},
    },
    bpf::{flow_tables::FlowTableSet, loader::Program, maps::Maps},
    compile::{
        capacity::CapacityError,
        map_snapshot::MapSnapshot,
        observed::{HealthCheckKey, Observed},
        plan::AddressChanges,
    },
    events::event_log::EventLog,
    host::{status::HostStatus, traffic::AttachmentTraffic},
    model::{
        Record, Reference, State, Webhook, identity::Authority, operations::Policy,
        service::HealthState, webhook::WebhookStatus,
    },
};

impl Controller {
    /// Returns the desired state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.desired.state
    }

    /// Returns the configured policy that operations depend on.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.desired.policy
    }

    /// Sets the authorities whose client certificates are accepted.
    pub fn set_authorities(&mut self, authorities: Vec<Authority>) {
        self.desired.policy.authorities = authorities;
    }

    /// Returns the recent events.
    #[must_use]
    pub const fn event_log(&self) -> &EventLog {
        &self.desired.event_log
    }

    /// Returns the delivery status of a webhook.
    #[must_use]
    pub fn webhook_status(&self, reference: &Reference, record: &Record<Webhook>) -> WebhookStatus {
        self.desired.webhook_queue.status(reference, record)
    }

    /// Merges the store's write-ahead log into its file, before the process ends.
    pub fn checkpoint(&self) {
        if let Err(error) = self.desired.store.checkpoint() {
            warn!("store: checkpoint failed error=\"{error}\"");
        }
    }

    /// Returns the observed state that the compiler uses.
    #[must_use]
    pub const fn observed(&self) -> &Observed {
        &self.observed.compiled
    }

    /// Returns the observed state of the host.
    #[must_use]
    pub const fn host_status(&self) -> &HostStatus {
        &self.observed.host
    }

    /// Returns the traffic of an attachment's interface, if it is watched.
    #[must_use]
    pub fn traffic(&self, interface: &str) -> Option<&AttachmentTraffic> {
        self.observed.traffic.as_ref()?.get(interface)
    }

    /// Returns the problems of an attachment's interface, each with what to do about it.
    pub fn attachment_problems(&self, interface: &str) -> impl Iterator<Item = String> {
        let state = self.observed.host.attachments.get(interface);
        let problems = state.map(|state| state.problems.clone());
        let traffic = self.traffic(interface);
        let losses = traffic.and_then(|traffic| traffic.problem(interface, Timestamp::now()));
        problems.into_iter().flatten().chain(losses)
    }

    /// Returns the health of a backend, if it is checked.
    #[must_use]
    pub fn backend_health(&self, key: &HealthCheckKey) -> Option<&HealthState> {
        self.observed.backend_health.get(key)
    }

    /// Returns the status of an address of an endpoint or of SNAT in conflict detection.
    #[must_use]
    pub fn address_status(&self, key: &NetworkAddress) -> Option<ClaimStatus> {
        self.observed.conflict_detector.status(key)
    }

    /// Returns the addresses from `first` to `last` of a network that are not in use yet or are disputed.
    pub fn unsettled_addresses(
        &self,
        network: &Reference,
        first: IpAddr,
        last: IpAddr,
    ) -> impl Iterator<Item = (IpAddr, ClaimStatus)> {
        let detector = &self.observed.conflict_detector;
        detector.unsettled(network, first, last)
    }

    /// Returns the usage of the SNAT addresses from `first` to `last` in the network with this number.
    pub fn snat_usage(
        &self,
        network: u32,
        first: IpAddr,
        last: IpAddr,
    ) -> impl Iterator<Item = (IpAddr, SnatUsage)> {
        let usage = self
            .observed
            .snat_usage
            .range((network, first)..=(network, last));
        usage.map(|((_, address), usage)| (*address, *usage))
    }

    /// Returns the usage of the flow tables at the last collection: IPv4, IPv6.
    #[must_use]
    pub const fn flow_tables(&self) -> &[FlowTableStatus; 2] {
        &self.observed.flow_tables
    }

    /// Returns the maps of the data path.
    #[must_use]
    pub const fn maps(&self) -> &Maps {
        &self.datapath.maps
    }

    /// Takes the changes of the local addresses and of the interfaces that have them since the last call.
    pub(in crate::agent) fn take_address_changes(&mut self) -> AddressChanges {
        std::mem::take(&mut self.datapath.address_changes)
    }

    /// Returns the contents of the maps.
    #[must_use]
    pub const fn map_snapshot(&self) -> &MapSnapshot {
        &self.datapath.map_snapshot
    }

    /// Returns the XDP program.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.datapath.program
    }

    /// Finishes the migration of flows from tables of another size.
    ///
    /// # Errors
    /// When the pins of those tables can't be removed.
    pub fn finish_migration(&mut self, tables: &FlowTableSet) -> Result<()> {
        self.datapath.program.finish_migration(tables)
    }

    /// Returns true if the maps hold what desired and observed state say.
    #[must_use]
    pub const fn in_sync(&self) -> bool {
        self.datapath.in_sync
    }

    /// Returns the objects that did not fit into the maps.
    #[must_use]
    pub fn capacity_errors(&self) -> &[CapacityError] {
        &self.datapath.capacity_errors
    }

    /// Takes a snapshot for flow GC.
    #[must_use]
    pub fn gc_snapshot(&self) -> GcSnapshot {
        GcSnapshot::new(
            &self.datapath.map_snapshot,
            self.datapath.departed_backends.clone(),
            self.datapath.draining.addresses().copied().collect(),
        )
    }

    /// Returns the notification of flows that may have been revoked.
    #[must_use]
    pub fn flows_revoked(&self) -> Arc<Notify> {
        Arc::clone(&self.datapath.flows_revoked)
    }
}
