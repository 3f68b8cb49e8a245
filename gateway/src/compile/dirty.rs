//! Objects whose map entries a change may concern. Only these are compiled again. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use crate::model::{Change, Name, Object, Record, Reference, Service, State};

/// Objects whose map entries may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirtyObjects {
    /// Networks with changed attachments, services or translation.
    pub networks: BTreeSet<Reference>,
    /// Services with changed contents, interfaces, next hops or health.
    pub services: BTreeSet<Reference>,
    /// Endpoints with changed contents, service or addresses.
    pub endpoints: BTreeSet<Reference>,
}

impl DirtyObjects {
    /// Returns true if no object is dirty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.services.is_empty() && self.endpoints.is_empty()
    }

    /// Marks the objects dirty that changes of the state concern. `before` is the state before the changes.
    pub fn add_changes(&mut self, before: &State, changes: &[Change]) {
        for change in changes {
            let object = change.object();
            let reference = object.reference();
            match object {
                Object::Network(..) => {
                    let services = before.services_of_network(&reference);
                    self.services
                        .extend(services.map(|(service, _)| service.clone()));
                    self.networks.insert(reference);
                }
                Object::Service(_, record) => {
                    let old = before.services.get(&reference);
                    let new = matches!(change, Change::Put(_)).then_some(record);
                    for record in old.into_iter().chain(new) {
                        let network = record.object.spec.network.clone();
                        let network = Reference::new(reference.tenant.clone(), network);
                        self.networks.insert(network);
                    }
                    if endpoint_visible_fields(old) != endpoint_visible_fields(new) {
                        let endpoints = before.endpoints_of_service(&reference);
                        self.endpoints
                            .extend(endpoints.map(|(endpoint, _)| endpoint.clone()));
                    }
                    self.services.insert(reference);
                }
                Object::Endpoint(..) => {
                    self.endpoints.insert(reference);
                }
                Object::Tenant(_)
                | Object::Token(..)
                | Object::Identity(..)
                | Object::Webhook(..) => {}
            }
        }
    }
}

/// Returns the fields of a service on which the map entries of its endpoints depend.
fn endpoint_visible_fields(record: Option<&Record<Service>>) -> Option<impl PartialEq + use<>> {
    let record = record?;
    let service = &record.object;
    let families: Vec<(Name, Option<bool>)> = service
        .spec
        .resources
        .iter()
        .map(|resource| {
            let first = resource.backends.first();
            (
                resource.name.clone(),
                first.map(|backend| backend.address.is_ipv4()),
            )
        })
        .collect();
    let sources: Vec<bool> = service
        .spec
        .nat_addresses
        .iter()
        .map(|range| matches!(range.ends().0, IpAddr::V4(_)))
        .collect();
    Some((
        record.meta.uid,
        service.resource_numbers.clone(),
        service.spec.network.clone(),
        service.spec.limits(),
        service.spec.timeouts,
        service.spec.unmatched_packet_action,
        families,
        sources,
    ))
}
