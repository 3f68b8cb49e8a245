//! Maintenance of the state's tables and indexes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{
    Kind, Object, Reference, object_size::object_size, occupancy::Occupancy, state::State,
};

impl State {
    /// Adds an object to its table and the indexes.
    pub(super) fn insert(&mut self, mut object: Object) {
        let meta = object.meta_mut();
        meta.version = self
            .version_key
            .derive_version(meta.uid, meta.version.revision());
        let weight = object_size(&object);
        if weight > 0 {
            *self
                .tenant_sizes
                .entry(object.tenant().clone())
                .or_default() += weight;
        }
        match object {
            Object::Tenant(record) => {
                self.tenants.insert(record.meta.name.clone(), record);
            }
            Object::Network(tenant, record) => {
                let reference = Reference::new(tenant, record.meta.name.clone());
                for attachment in &record.object.attachments {
                    let interface = attachment.interface.clone();
                    self.by_interface.insert(interface, reference.clone());
                }
                self.numbers.insert(record.object.number);
                self.networks.insert(reference, record);
            }
            Object::Service(tenant, record) => {
                let reference = Reference::new(tenant, record.meta.name.clone());
                let service = &record.object;
                self.by_alias
                    .insert(service.alias.clone(), reference.clone());
                let network =
                    Reference::new(reference.tenant.clone(), service.spec.network.clone());
                let occupancy = self.occupancy.entry(network.clone()).or_default();
                occupancy.insert_service(&reference, &service.spec);
                let user = (Kind::Service, reference.clone());
                if service.spec.has_ipv6() {
                    let users = self.by_ipv6.entry(network.clone()).or_default();
                    users.insert(user.clone());
                }
                self.by_network.entry(network).or_default().insert(user);
                self.numbers.insert(service.number);
                self.numbers.extend(service.resource_numbers.values());
                self.services.insert(reference, record);
            }
            Object::Endpoint(tenant, record) => {
                let reference = Reference::new(tenant, record.meta.name.clone());
                let endpoint = &record.object;
                let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
                let occupancy = self.occupancy.entry(network.clone()).or_default();
                occupancy.insert_endpoint(&reference, &endpoint.addresses);
                let user = (Kind::Endpoint, reference.clone());
                if endpoint.addresses.iter().any(IpAddr::is_ipv6) {
                    let users = self.by_ipv6.entry(network.clone()).or_default();
                    users.insert(user.clone());
                }
                self.by_network.entry(network).or_default().insert(user);
                let service = endpoint.service_identity.reference.clone();
                self.by_service
                    .entry(service)
                    .or_default()
                    .insert(reference.clone());
                self.by_link_id
                    .insert(endpoint.connection.link_id, reference.clone());
                self.slots.reserve(endpoint.connection.slot);
                self.endpoints.insert(reference, record);
            }
            Object::Token(tenant, record) => {
                let reference = Reference::new(tenant, record.meta.name.clone());
                let hash = record.object.hash.clone();
                self.by_token.insert(hash, reference.clone());
                self.tokens.insert(reference, record);
            }
            Object::Identity(tenant, record) => {
                let reference = Reference::new(tenant, record.meta.name.clone());
                let claim = record.object.claim.clone();
                let identities = self.by_claim.entry(claim).or_default();
                identities.insert(reference.clone());
                self.identities.insert(reference, record);
            }
            Object::Webhook(tenant, record) => {
                let reference = Reference::new(tenant, record.meta.name.clone());
                self.webhooks.insert(reference, record);
            }
        }
    }

    /// Removes entries of the network's index of addresses, and the index with its last entry.
    fn remove_occupancy(&mut self, network: &Reference, remove: impl FnOnce(&mut Occupancy)) {
        if let Some(occupancy) = self.occupancy.get_mut(network) {
            remove(occupancy);
            if occupancy.is_empty() {
                self.occupancy.remove(network);
            }
        }
    }

    /// Removes the object of this name from its table and the indexes.
    pub(super) fn remove(&mut self, object: &Object) {
        let old = self.object(object.kind(), &object.reference());
        let old = old.map_or(0, |old| object_size(&old));
        if let Some(weight) = self.tenant_sizes.get_mut(object.tenant()) {
            *weight = weight.saturating_sub(old);
            if *weight == 0 {
                self.tenant_sizes.remove(object.tenant());
            }
        }
        match object {
            Object::Tenant(record) => {
                self.tenants.remove(&record.meta.name);
            }
            Object::Network(tenant, record) => {
                let reference = Reference::new(tenant.clone(), record.meta.name.clone());
                if let Some(old) = self.networks.remove(&reference) {
                    for attachment in &old.object.attachments {
                        self.by_interface.remove(&attachment.interface);
                    }
                    self.numbers.remove(&old.object.number);
                }
            }
            Object::Service(tenant, record) => {
                let reference = Reference::new(tenant.clone(), record.meta.name.clone());
                if let Some(old) = self.services.remove(&reference) {
                    self.by_alias.remove(&old.object.alias);
                    let spec = &old.object.spec;
                    let network = Reference::new(tenant.clone(), spec.network.clone());
                    self.remove_occupancy(&network, |occupancy| {
                        occupancy.remove_service(&reference, spec)
                    });
                    let user = (Kind::Service, reference);
                    remove_member(&mut self.by_network, &network, &user);
                    remove_member(&mut self.by_ipv6, &network, &user);
                    self.numbers.remove(&old.object.number);
                    for number in old.object.resource_numbers.values() {
                        self.numbers.remove(number);
                    }
                }
            }
            Object::Endpoint(tenant, record) => {
                let reference = Reference::new(tenant.clone(), record.meta.name.clone());
                if let Some(old) = self.endpoints.remove(&reference) {
                    let endpoint = old.object;
                    let network = Reference::new(tenant.clone(), endpoint.network);
                    self.remove_occupancy(&network, |occupancy| {
                        occupancy.remove_endpoint(&endpoint.addresses)
                    });
                    let user = (Kind::Endpoint, reference.clone());
                    remove_member(&mut self.by_network, &network, &user);
                    remove_member(&mut self.by_ipv6, &network, &user);
                    let service = endpoint.service_identity.reference;
                    remove_member(&mut self.by_service, &service, &reference);
                    self.by_link_id.remove(&endpoint.connection.link_id);
                    self.slots.release(endpoint.connection.slot);
                }
            }
            Object::Token(..) => {
                if let Some(old) = self.tokens.remove(&object.reference()) {
                    self.by_token.remove(&old.object.hash);
                }
            }
            Object::Identity(..) => {
                let reference = object.reference();
                if let Some(old) = self.identities.remove(&reference) {
                    remove_member(&mut self.by_claim, &old.object.claim, &reference);
                }
            }
            Object::Webhook(..) => {
                self.webhooks.remove(&object.reference());
            }
        }
    }
}

/// Removes a member of an index's set, and the set with its last member.
fn remove_member<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(set) = index.get_mut(key) {
        set.remove(member);
        if set.is_empty() {
            index.remove(key);
        }
    }
}
