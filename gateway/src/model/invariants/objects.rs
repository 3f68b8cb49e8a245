//! Invariants of single objects, uniqueness of their values, and references between them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    net::IpAddr,
};

use gateway_common::{flow::NetworkProto, maps::MAX_CONNECTIONS};
use uuid::Uuid;

use crate::model::{
    ConnectionState, Endpoint, Name, Network, Object, Problem, Record, Reference, Service,
    address::check_host,
    invariants::Violation,
    operations::is_alias_for,
    record::{check_stored_labels, check_stored_text},
};

/// Values that must be unique, and objects that other objects refer to.
#[derive(Default)]
pub(super) struct SeenValues<'a> {
    uids: HashSet<Uuid>,
    numbers: HashSet<u32>,
    slots: HashSet<u32>,
    interfaces: HashSet<&'a str>,
    aliases: HashSet<&'a str>,
    hashes: HashSet<&'a str>,
    tenants: HashSet<&'a Name>,
    networks: HashMap<Reference, &'a Network>,
    services: HashMap<Reference, &'a Record<Service>>,
}

impl<'a> SeenValues<'a> {
    /// Checks an object by itself and for uniqueness, and records it.
    pub(super) fn add(&mut self, object: &'a Object) -> Result<(), Violation> {
        let violation = |detail: String| Violation::new(object, detail);
        let problem = |problem: Problem| Violation::new(object, problem.detail);
        check_stored_labels(&object.meta().labels).map_err(problem)?;
        insert_unique(&mut self.uids, object.meta().uid, "uid").map_err(violation)?;
        match object {
            Object::Tenant(record) => {
                self.tenants.insert(&record.meta.name);
            }
            Object::Network(_, record) => {
                let network = &record.object;
                network.check().map_err(problem)?;
                if network.number > NetworkProto::MAX_NETWORK {
                    let max = NetworkProto::MAX_NETWORK;
                    return Err(violation(format!(
                        "its number {} is above the maximum {max}",
                        network.number
                    )));
                }
                self.add_number(network.number).map_err(violation)?;
                for attachment in &network.attachments {
                    insert_unique(
                        &mut self.interfaces,
                        attachment.interface.as_str(),
                        "interface",
                    )
                    .map_err(violation)?;
                }
                self.networks.insert(object.reference(), network);
            }
            Object::Service(_, record) => self.add_service(object, record)?,
            Object::Endpoint(_, record) => {
                check_endpoint(&record.object).map_err(problem)?;
                let connection = &record.object.connection;
                self.add_number(connection.link_id).map_err(violation)?;
                if connection.slot >= MAX_CONNECTIONS {
                    return Err(violation(format!("its slot is {}", connection.slot)));
                }
                insert_unique(&mut self.slots, connection.slot, "slot").map_err(violation)?;
                let approved = connection.state == ConnectionState::Approved;
                if approved != (connection.generation != 0) {
                    let (state, generation) = (connection.state, connection.generation);
                    return Err(violation(format!(
                        "its connection is {state} with generation {generation}"
                    )));
                }
            }
            Object::Token(_, record) => {
                let hash = &record.object.hash;
                if !hash.is_well_formed() {
                    return Err(violation("its hash is not a SHA-256".to_owned()));
                }
                insert_unique(&mut self.hashes, hash.as_str(), "hash").map_err(violation)?;
            }
            Object::Identity(_, record) => record.object.claim.check().map_err(problem)?,
            Object::Webhook(_, record) => record.object.check().map_err(problem)?,
        }
        Ok(())
    }

    fn add_service(
        &mut self,
        object: &Object,
        record: &'a Record<Service>,
    ) -> Result<(), Violation> {
        let violation = |detail: String| Violation::new(object, detail);
        let service = &record.object;
        service
            .spec
            .check()
            .map_err(|problem| violation(problem.detail))?;
        self.add_number(service.number).map_err(violation)?;
        for number in service.resource_numbers.values() {
            self.add_number(*number).map_err(violation)?;
        }
        let resources: HashSet<&Name> = service.spec.resources.iter().map(|r| &r.name).collect();
        let numbered = service.resource_numbers.keys();
        if resources != numbered.collect() {
            return Err(violation(
                "its resources differ from its resource_numbers".to_owned(),
            ));
        }
        if !is_alias_for(&record.meta.name, &service.alias) {
            let shown: String = service.alias.chars().take(100).collect();
            return Err(violation(format!("its alias is {shown:?}")));
        }
        insert_unique(&mut self.aliases, service.alias.as_str(), "alias").map_err(violation)?;
        self.services.insert(object.reference(), record);
        Ok(())
    }

    /// Records the number of a network, service, resource or connection.
    fn add_number(&mut self, number: u32) -> Result<(), String> {
        if number == 0 {
            return Err("one of its numbers is 0".to_owned());
        }
        insert_unique(&mut self.numbers, number, "number")
    }

    /// Checks that the objects that the object refers to exist.
    pub(super) fn check_references(&self, object: &Object) -> Result<(), Violation> {
        let violation = |detail: String| Violation::new(object, detail);
        let tenant = object.tenant();
        if !self.tenants.contains(tenant) {
            return Err(violation(format!("there is no tenant {tenant}")));
        }
        let network = |name: &Name| {
            let reference = Reference::new(tenant.clone(), name.clone());
            let found = self.networks.get(&reference);
            found.ok_or_else(|| violation(format!("there is no network {reference}")))
        };
        match object {
            Object::Service(_, record) => network(&record.object.spec.network).map(drop),
            Object::Endpoint(_, record) => {
                let endpoint = &record.object;
                let network = network(&endpoint.network)?;
                for address in &endpoint.addresses {
                    network
                        .check_member("addresses", *address)
                        .map_err(|problem| violation(problem.detail))?;
                }
                self.check_service(endpoint).map_err(violation)
            }
            _ => Ok(()),
        }
    }

    /// Checks that a connection which is not final has its service and resource.
    fn check_service(&self, endpoint: &Endpoint) -> Result<(), String> {
        // Disconnected is final: the service may be deleted, or replaced by another one of the same name.
        if endpoint.connection.state == ConnectionState::Disconnected {
            return Ok(());
        }
        let bound = &endpoint.service_identity;
        let service = self
            .services
            .get(&bound.reference)
            .filter(|service| service.meta.uid == bound.uid)
            .ok_or_else(|| {
                format!(
                    "there is no service {} with the uid that it is bound to",
                    bound.reference
                )
            })?;
        let resource = service.object.spec.resource(&endpoint.resource);
        resource.map(drop).ok_or_else(|| {
            format!(
                "service {} has no resource {}",
                bound.reference, endpoint.resource
            )
        })
    }
}

/// Checks the fields of an endpoint that do not depend on other objects.
fn check_endpoint(endpoint: &Endpoint) -> Result<(), Problem> {
    let families: HashSet<bool> = endpoint.addresses.iter().map(IpAddr::is_ipv4).collect();
    if endpoint.addresses.is_empty() || families.len() != endpoint.addresses.len() {
        return Err(Problem::invalid(
            "addresses",
            "an endpoint has one address of each family",
        ));
    }
    for address in &endpoint.addresses {
        check_host("addresses", *address)?;
    }
    check_stored_text("service", &endpoint.service)?;
    check_stored_text("request_message", &endpoint.request_message)?;
    check_stored_text("reason", &endpoint.connection.reason)
}

/// Inserts a value, or fails if the set has it already.
fn insert_unique<T: Copy + Eq + Hash + fmt::Display>(
    set: &mut HashSet<T>,
    value: T,
    what: &str,
) -> Result<(), String> {
    if set.insert(value) {
        return Ok(());
    }
    Err(format!("its {what} {value} belongs to another object too"))
}
