//! Changes of desired and observed state: each reconciles the maps of both platforms.

use gateway::model::{Decision, Reference, operations};
use serde_json::{Value, json};
use std::net::IpAddr;

use crate::datapath::fixture::body;

use super::{DifferentialHarness, insert_attachment, insert_next_hop};
use crate::packet::addresses::*;

impl DifferentialHarness {
    /// Applies a provider's decision on a connection.
    pub fn decide(&mut self, endpoint: &str, decision: Decision) {
        self.desired.decide(endpoint, decision);
        self.reconcile();
    }

    /// Deletes an endpoint.
    pub fn delete_endpoint(&mut self, endpoint: &str) {
        let endpoint: Reference = endpoint.parse().expect("a reference");
        self.desired
            .change(|state, _, _| operations::delete_endpoint(state, &endpoint));
        self.reconcile();
    }

    /// Replaces the backends of the web service.
    pub fn set_backends(&mut self, backends: &Value) {
        self.change_web_service(|spec| spec["resources"][0]["backends"] = backends.clone());
    }

    /// Changes the web service.
    pub fn change_web_service(&mut self, edit: impl FnOnce(&mut Value)) {
        self.change_service("web", edit);
    }

    /// Changes a service.
    ///
    /// # Panics
    /// Panics if that is refused.
    pub fn change_service(&mut self, service: &str, edit: impl FnOnce(&mut Value)) {
        let service: Reference = format!("shop/{service}").parse().expect("a reference");
        let spec = &self.desired.state.services[&service].object.spec;
        let mut request = serde_json::to_value(spec).expect("a value");
        edit(&mut request);
        self.desired.change(|state, context, _| {
            operations::update_service(state, context, &service, body(request))
        });
        self.reconcile();
    }

    /// Changes a network.
    pub fn change_network(&mut self, network: &str, edit: impl FnOnce(&mut Value)) {
        let network: Reference = network.parse().expect("a reference");
        let object = &self.desired.state.networks[&network].object;
        let mut request = json!({ "attachments": object.attachments });
        edit(&mut request);
        self.desired.change(|state, context, _| {
            operations::update_network(state, context, &network, body(request))
        });
        self.reconcile();
    }

    /// Sets an interface up or down.
    pub fn set_interface_up(&mut self, side: Side, up: bool) {
        self.observe_attachment(side, up);
        self.reconcile();
    }

    /// Sets whether a backend's next hop is known.
    pub fn set_reachable(&mut self, backend: impl Into<IpAddr>, reachable: bool) {
        self.observe_backend(backend.into(), reachable);
        self.reconcile();
    }

    /// Marks a backend of a service's only resource as unhealthy.
    ///
    /// # Panics
    /// Never panics: the literals are names.
    pub fn mark_unhealthy(&mut self, service: &str, backend: IpAddr) {
        let service = format!("shop/{service}").parse().expect("a reference");
        let resource = "default".parse().expect("a name");
        self.observed.unhealthy.insert((service, resource, backend));
        self.reconcile();
    }

    /// Marks an endpoint's address as tentative: address conflict detection still probes it.
    ///
    /// # Panics
    /// Never panics: the literal is a reference.
    pub fn mark_tentative(&mut self, network: &str, address: IpAddr) {
        let network = network.parse().expect("a reference");
        self.observed.tentative.insert((network, address));
        self.reconcile();
    }

    pub(super) fn observe_attachment(&mut self, side: Side, up: bool) {
        if up {
            insert_attachment(&mut self.observed, side, self.ifindexes[&side]);
        } else {
            self.observed.interfaces.remove(side.interface());
        }
    }

    pub(super) fn observe_backend(&mut self, backend: IpAddr, reachable: bool) {
        if reachable {
            insert_next_hop(&mut self.observed, backend);
        } else {
            let key = ("shop/net".parse().expect("a reference"), backend);
            self.observed.next_hops.remove(&key);
        }
    }

    /// Returns the connection slot of an endpoint.
    pub(super) fn connection_slot(&self, endpoint: &str) -> u32 {
        let endpoint: Reference = endpoint.parse().expect("a reference");
        let record = &self.desired.state.endpoints[&endpoint];
        record.object.connection.slot
    }

    /// Returns another SNAT address of the same service.
    ///
    /// # Panics
    /// Panics if there is none.
    #[must_use]
    pub fn other_snat_address(&self, address: IpAddr) -> IpAddr {
        let mut services = self.desired.state.services.values();
        let mut ranges = services
            .by_ref()
            .flat_map(|record| &record.object.spec.nat_addresses);
        let range = ranges
            .find(|range| range.contains(address))
            .expect("a source NAT address");
        let mut others = range.iter().filter(|other| *other != address);
        others.next().expect("another address")
    }
}
