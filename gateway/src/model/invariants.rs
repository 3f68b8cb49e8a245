//! Invariants of the whole state: references, uniqueness and ranges. Operations keep them. A start and a restore check
//! them before any stored object is used.
//!
//! Quotas are not invariants: they may be lowered below the number of objects that a tenant has.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    hash::Hash,
    net::IpAddr,
};

use gateway_common::{flow::NetworkProto, maps::MAX_CONNECTIONS};
use uuid::Uuid;

use crate::model::{
    ConnectionState, Endpoint, Name, Network, Object, Problem, Record, Reference, Service,
    address::{AddressRange, check_host},
    operations::is_alias_for,
    record::{check_stored_labels, check_stored_text},
};

/// Violation of an invariant by a stored object. No sequence of operations creates such an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {key} can't be used: {detail}")]
pub struct Violation {
    /// Key of the object in the store.
    pub key: String,
    /// Description of the violated invariant.
    pub detail: String,
}

impl Violation {
    fn new(object: &Object, detail: impl Into<String>) -> Self {
        Self {
            key: object.key(),
            detail: detail.into(),
        }
    }
}

/// Checks the objects of a state. Time and memory are proportional to the size of the objects, whatever they contain.
///
/// # Errors
/// Fails with the first violation.
pub fn check(objects: &[Object]) -> Result<(), Violation> {
    let mut seen = SeenValues::default();
    for object in objects {
        seen.add(object)?;
    }
    let mut members = BTreeMap::new();
    for object in objects {
        seen.check_references(object)?;
        add_member(object, &mut members);
    }
    members.values_mut().try_for_each(NetworkMembers::check)
}

/// Values that must be unique, and objects that other objects refer to.
#[derive(Default)]
struct SeenValues<'a> {
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
    fn add(&mut self, object: &'a Object) -> Result<(), Violation> {
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
            return Err(violation("its resources differ from its resource_numbers".to_owned()));
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
    fn check_references(&self, object: &Object) -> Result<(), Violation> {
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
            .ok_or_else(|| format!("there is no service {} with the uid that it is bound to", bound.reference))?;
        let resource = service.object.spec.resource(&endpoint.resource);
        resource.map(drop).ok_or_else(|| {
            format!(
                "service {} has no resource {}",
                bound.reference, endpoint.resource
            )
        })
    }
}

/// Records the addresses that the object uses in its network.
fn add_member<'a>(object: &'a Object, members: &mut BTreeMap<Reference, NetworkMembers<'a>>) {
    match object {
        Object::Service(_, record) => {
            let spec = &record.object.spec;
            let reference = Reference::new(object.tenant().clone(), spec.network.clone());
            let members = members.entry(reference).or_default();
            let ranges = spec.nat_addresses.iter();
            members.ranges.extend(ranges.map(|range| (*range, object)));
            for backend in spec.resources.iter().flat_map(|r| &r.backends) {
                members.backends.insert(backend.address, object);
            }
        }
        Object::Endpoint(_, record) => {
            let endpoint = &record.object;
            let reference = Reference::new(object.tenant().clone(), endpoint.network.clone());
            let members = members.entry(reference).or_default();
            let addresses = endpoint.addresses.iter();
            members
                .endpoints
                .extend(addresses.map(|address| (*address, object)));
        }
        _ => {}
    }
}

/// Addresses that objects use in one network, with the objects.
#[derive(Default)]
struct NetworkMembers<'a> {
    endpoints: Vec<(IpAddr, &'a Object)>,
    ranges: Vec<(AddressRange, &'a Object)>,
    backends: HashMap<IpAddr, &'a Object>,
}

impl NetworkMembers<'_> {
    /// Checks that no address has two uses. Several services may have the same backend.
    fn check(&mut self) -> Result<(), Violation> {
        let conflict = |object: &Object, address: &dyn fmt::Display, other: &Object| {
            Violation::new(
                object,
                format!("{address} is an address of {} too", other.key()),
            )
        };
        self.ranges.sort_by_key(|(range, _)| range.ends());
        for pair in self.ranges.windows(2) {
            if let [(first, one), (second, other)] = pair
                && first.overlaps(*second)
            {
                return Err(conflict(other, second, one));
            }
        }
        for (address, backend) in &self.backends {
            if let Some(service) = self.range_containing(*address) {
                return Err(conflict(service, address, backend));
            }
        }
        let mut addresses = HashMap::new();
        for (address, endpoint) in &self.endpoints {
            let other = addresses.insert(*address, *endpoint);
            let other = other
                .or_else(|| self.backends.get(address).copied())
                .or_else(|| self.range_containing(*address));
            if let Some(other) = other {
                return Err(conflict(endpoint, address, other));
            }
        }
        Ok(())
    }

    /// Returns the service whose SNAT ranges contain the address. The ranges must be sorted and disjoint.
    fn range_containing(&self, address: IpAddr) -> Option<&Object> {
        let after = self
            .ranges
            .partition_point(|(range, _)| range.ends().0 <= address);
        let (range, service) = self.ranges.get(after.checked_sub(1)?)?;
        range.contains(address).then_some(*service)
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

#[cfg(test)]
mod tests;
