//! Desired state, with indexes for look-ups.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use crate::model::{
    Change, Endpoint, Identity, Kind, Name, Network, Object, Record, Reference, Service, Tenant,
    Token, Version, VersionKey, Webhook,
    identity::Claim,
    kind::objects,
    object_size::object_size,
    occupancy::{self, Occupancy},
    slot_allocator::SlotAllocator,
    token::TokenHash,
};

/// Desired state: all objects, in memory.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Tenants by name.
    pub tenants: BTreeMap<Name, Record<Tenant>>,
    /// Networks by reference.
    pub networks: BTreeMap<Reference, Record<Network>>,
    /// Services by reference.
    pub services: BTreeMap<Reference, Record<Service>>,
    /// Endpoints by reference.
    pub endpoints: BTreeMap<Reference, Record<Endpoint>>,
    /// Tokens by reference.
    pub tokens: BTreeMap<Reference, Record<Token>>,
    /// Identities by reference.
    pub identities: BTreeMap<Reference, Record<Identity>>,
    /// Webhooks by reference.
    pub webhooks: BTreeMap<Reference, Record<Webhook>>,

    by_interface: HashMap<String, Reference>,
    by_alias: HashMap<String, Reference>,
    by_link_id: HashMap<u32, Reference>,
    /// Addresses in use, by network. A network without any is absent.
    occupancy: BTreeMap<Reference, Occupancy>,
    by_service: BTreeMap<Reference, BTreeSet<Reference>>,
    by_network: BTreeMap<Reference, BTreeSet<(Kind, Reference)>>,
    /// Services and endpoints that have IPv6 addresses in a network.
    by_ipv6: BTreeMap<Reference, BTreeSet<(Kind, Reference)>>,
    by_token: HashMap<TokenHash, Reference>,
    by_claim: BTreeMap<Claim, BTreeSet<Reference>>,
    /// Size of each tenant's objects, the sum of [`object_size`].
    tenant_sizes: BTreeMap<Name, usize>,
    version_key: VersionKey,
    slots: SlotAllocator,
    numbers: BTreeSet<u32>,
}

impl State {
    /// Creates the state from stored objects. The key derives the versions that users see.
    #[must_use]
    pub fn new(objects: impl IntoIterator<Item = Object>, version_key: VersionKey) -> Self {
        let mut state = Self {
            version_key,
            ..Self::default()
        };
        for object in objects {
            state.insert(object);
        }
        state
    }

    /// Applies changes that the store has committed at this revision.
    pub fn apply(&mut self, changes: Vec<Change>, revision: u64) {
        for change in changes {
            match change {
                Change::Put(mut object) => {
                    self.remove(&object);
                    object.meta_mut().version = Version::from_revision(revision);
                    self.insert(object);
                }
                Change::Delete(object) => self.remove(&object),
            }
        }
    }

    /// Returns the network that the interface is attached to.
    #[must_use]
    pub fn network_by_interface(&self, interface: &str) -> Option<&Reference> {
        self.by_interface.get(interface)
    }

    /// Returns the service with this alias.
    #[must_use]
    pub fn service_by_alias(&self, alias: &str) -> Option<&Reference> {
        self.by_alias.get(alias)
    }

    /// Returns the endpoint whose connection has this link id.
    #[must_use]
    pub fn endpoint_by_link_id(&self, link_id: u32) -> Option<&Reference> {
        self.by_link_id.get(&link_id)
    }

    /// Returns the index of the addresses that endpoints, backends and SNAT use in the network.
    #[must_use]
    pub fn occupancy(&self, network: &Reference) -> &Occupancy {
        self.occupancy.get(network).unwrap_or(&occupancy::EMPTY)
    }

    /// Returns the endpoint with this address in the network.
    #[must_use]
    pub fn endpoint_by_address(&self, network: &Reference, address: IpAddr) -> Option<&Reference> {
        self.occupancy(network).endpoint_at(address)
    }

    /// Returns the endpoints connected to the service.
    pub fn endpoints_of_service(
        &self,
        service: &Reference,
    ) -> impl Iterator<Item = (&Reference, &Record<Endpoint>)> {
        self.by_service
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|reference| self.endpoints.get_key_value(reference))
    }

    /// Returns the services in the network.
    pub fn services_of_network(
        &self,
        network: &Reference,
    ) -> impl Iterator<Item = (&Reference, &Record<Service>)> {
        // Services are ordered before endpoints.
        let users = self.users_of_network(network);
        users
            .take_while(|(kind, _)| *kind == Kind::Service)
            .inspect(|_| occupancy::count_visit())
            .filter_map(|(_, reference)| self.services.get_key_value(reference))
    }

    /// Returns the services and endpoints in the network.
    pub fn users_of_network(
        &self,
        network: &Reference,
    ) -> impl Iterator<Item = &(Kind, Reference)> {
        self.by_network.get(network).into_iter().flatten()
    }

    /// Returns true if an endpoint or SNAT has an IPv6 address in the network.
    #[must_use]
    pub fn has_ipv6(&self, network: &Reference) -> bool {
        self.by_ipv6.contains_key(network)
    }

    /// Returns the interfaces that networks are attached to, with their networks.
    pub fn interfaces(&self) -> impl Iterator<Item = (&String, &Reference)> {
        self.by_interface.iter()
    }

    /// Returns the addresses of the endpoints in the network.
    pub fn addresses_of_network(
        &self,
        network: &Reference,
    ) -> impl Iterator<Item = (IpAddr, &Reference)> {
        self.users_of_network(network)
            .skip_while(|(kind, _)| *kind != Kind::Endpoint)
            .filter_map(|(_, reference)| self.endpoints.get_key_value(reference))
            .flat_map(|(reference, record)| {
                record
                    .object
                    .addresses
                    .iter()
                    .map(move |address| (*address, reference))
            })
    }

    /// Returns the objects of one kind that the tenant owns.
    pub fn owned_by<'a, T>(
        objects: &'a BTreeMap<Reference, T>,
        tenant: &'a Name,
    ) -> impl Iterator<Item = (&'a Reference, &'a T)> {
        let first = Reference::new(tenant.clone(), Name::min());
        objects
            .range(first..)
            .take_while(move |(reference, _)| reference.tenant == *tenant)
    }

    /// Returns the token with this hash.
    #[must_use]
    pub fn token_by_hash(&self, hash: &TokenHash) -> Option<(&Reference, &Record<Token>)> {
        self.tokens.get_key_value(self.by_token.get(hash)?)
    }

    /// Returns the identities that match the claim.
    pub fn identities_by_claim(
        &self,
        claim: &Claim,
    ) -> impl Iterator<Item = (&Reference, &Record<Identity>)> {
        let references = self.by_claim.get(claim).into_iter().flatten();
        references.filter_map(|reference| self.identities.get_key_value(reference))
    }

    /// Returns the lowest free slot of the data path's arrays of connections.
    #[must_use]
    pub fn free_slot(&self) -> u32 {
        self.slots.lowest_free()
    }

    /// Returns true if a network, service, resource or connection has this number.
    #[must_use]
    pub fn number_is_taken(&self, number: u32) -> bool {
        self.numbers.contains(&number) || self.by_link_id.contains_key(&number)
    }

    /// Returns the total size in bytes of the fields that the tenant chose for its objects.
    #[must_use]
    pub fn tenant_size(&self, tenant: &Name) -> usize {
        self.tenant_sizes.get(tenant).copied().unwrap_or_default()
    }

    fn insert(&mut self, mut object: Object) {
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

    /// Removes what is there under the object's name.
    fn remove(&mut self, object: &Object) {
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

macro_rules! define_object_access {
    (
        $(#[$tenant_doc:meta])* Tenant $tenant:ident $tenants:ident;
        $($(#[$doc:meta])* $kind:ident $singular:ident $plural:ident;)*
    ) => {
        impl State {
            /// Returns all objects, ordered by kind.
            pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
                let tenants = self.$tenants.values().cloned().map(Object::Tenant);
                tenants $(.chain(objects_in(&self.$plural, Object::$kind)))*
            }

            /// Returns the object of a kind and reference. A tenant's reference has its name twice.
            #[must_use]
            pub fn object(&self, kind: Kind, reference: &Reference) -> Option<Object> {
                match kind {
                    Kind::Tenant => {
                        let record = self.$tenants.get(&reference.tenant)?;
                        Some(Object::Tenant(record.clone()))
                    }
                    $(Kind::$kind => object_in(&self.$plural, reference, Object::$kind),)*
                }
            }
        }
    };
}
objects!(define_object_access);

fn objects_in<'a, T: Clone>(
    objects: &'a BTreeMap<Reference, Record<T>>,
    object: impl Fn(Name, Record<T>) -> Object + 'a,
) -> impl Iterator<Item = Object> + 'a {
    let objects = objects.iter();
    objects.map(move |(reference, record)| object(reference.tenant.clone(), record.clone()))
}

fn object_in<T: Clone>(
    objects: &BTreeMap<Reference, Record<T>>,
    reference: &Reference,
    object: impl Fn(Name, Record<T>) -> Object,
) -> Option<Object> {
    let record = objects.get(reference)?;
    Some(object(reference.tenant.clone(), record.clone()))
}
