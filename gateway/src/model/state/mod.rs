//! Desired state, with indexes for look-ups.

mod index;
mod objects;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use crate::model::{
    Change, Endpoint, Identity, Kind, Name, Network, Object, Record, Reference, Service, Tenant,
    Token, Version, VersionKey, Webhook,
    identity::Claim,
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
    /// Size of each tenant's objects, the sum of [`object_size`](crate::model::object_size::object_size).
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
    ///
    /// All former objects are removed first. A slot, a number or an address may pass from one object to another, whatever
    /// the order of their changes, and a removal would free what the other object has just taken.
    pub fn apply(&mut self, changes: Vec<Change>, revision: u64) {
        for change in &changes {
            self.remove(change.object());
        }
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
}
