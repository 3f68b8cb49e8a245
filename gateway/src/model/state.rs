//! The whole desired state, and the indexes that keep a look-up from being a search.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::{Endpoint, Name, Network, Record, Reference, Service, Tenant};

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A tenant.
    Tenant,
    /// A network.
    Network,
    /// A service.
    Service,
    /// An endpoint, with its connection.
    Endpoint,
}

impl Kind {
    /// The word in paths and store keys.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Network => "networks",
            Self::Service => "services",
            Self::Endpoint => "endpoints",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tenant => "tenant",
            Self::Network => "network",
            Self::Service => "service",
            Self::Endpoint => "endpoint",
        })
    }
}

/// An object of any kind, with where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A tenant.
    Tenant(Record<Tenant>),
    /// A network, and its owner.
    Network(Name, Record<Network>),
    /// A service, and its owner.
    Service(Name, Record<Service>),
    /// An endpoint, and its owner.
    Endpoint(Name, Record<Endpoint>),
}

/// One thing that an operation changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is created (version 0) or takes the place of the version that it carries.
    Put(Object),
    /// This object is removed.
    Delete(Object),
}

/// Why a stored object can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The key is of no known form.
    #[error("the store holds an unknown key {0:?}")]
    Key(String),
    /// The value is not what the key says.
    #[error("the store's {key:?} can't be read: {error}")]
    Value {
        /// Which one.
        key: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

impl Object {
    /// Its key in the store: `tenants/T`, `networks/T/N`, ...
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Tenant(record) => format!("tenants/{}", record.meta.name),
            Self::Network(tenant, record) => format!("networks/{tenant}/{}", record.meta.name),
            Self::Service(tenant, record) => format!("services/{tenant}/{}", record.meta.name),
            Self::Endpoint(tenant, record) => format!("endpoints/{tenant}/{}", record.meta.name),
        }
    }

    /// The version that it carries.
    #[must_use]
    pub const fn version(&self) -> u64 {
        match self {
            Self::Tenant(record) => record.meta.version,
            Self::Network(_, record) => record.meta.version,
            Self::Service(_, record) => record.meta.version,
            Self::Endpoint(_, record) => record.meta.version,
        }
    }

    const fn set_version(&mut self, version: u64) {
        match self {
            Self::Tenant(record) => record.meta.version = version,
            Self::Network(_, record) => record.meta.version = version,
            Self::Service(_, record) => record.meta.version = version,
            Self::Endpoint(_, record) => record.meta.version = version,
        }
    }

    /// Its value in the store.
    ///
    /// # Errors
    /// Never for the types as they are; serde's signature demands it.
    pub fn encode(&self) -> serde_json::Result<String> {
        match self {
            Self::Tenant(record) => serde_json::to_string(record),
            Self::Network(_, record) => serde_json::to_string(record),
            Self::Service(_, record) => serde_json::to_string(record),
            Self::Endpoint(_, record) => serde_json::to_string(record),
        }
    }

    /// Reads a stored object.
    ///
    /// # Errors
    /// When key or value are not what [`Object::key`] and [`Object::encode`] make.
    pub fn decode(key: &str, value: &str, version: u64) -> Result<Self, DecodeError> {
        fn read<T: DeserializeOwned>(key: &str, value: &str) -> Result<T, DecodeError> {
            serde_json::from_str(value).map_err(|error| DecodeError::Value {
                key: key.to_owned(),
                error,
            })
        }
        let unknown = || DecodeError::Key(key.to_owned());
        let parts: Vec<&str> = key.split('/').collect();
        let tenant = |name: &str| name.parse::<Name>().map_err(|_| unknown());
        let mut object = match parts.as_slice() {
            ["tenants", _] => Self::Tenant(read(key, value)?),
            ["networks", owner, _] => Self::Network(tenant(owner)?, read(key, value)?),
            ["services", owner, _] => Self::Service(tenant(owner)?, read(key, value)?),
            ["endpoints", owner, _] => Self::Endpoint(tenant(owner)?, read(key, value)?),
            _ => return Err(unknown()),
        };
        object.set_version(version);
        if object.key() == key {
            Ok(object)
        } else {
            Err(unknown())
        }
    }
}

/// Everything that users asked for, in memory.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// By name.
    pub tenants: BTreeMap<Name, Record<Tenant>>,
    /// By reference.
    pub networks: BTreeMap<Reference, Record<Network>>,
    /// By reference.
    pub services: BTreeMap<Reference, Record<Service>>,
    /// By reference.
    pub endpoints: BTreeMap<Reference, Record<Endpoint>>,

    by_interface: HashMap<String, Reference>,
    by_alias: HashMap<String, Reference>,
    by_link_id: HashMap<u32, Reference>,
    by_address: HashMap<(Reference, IpAddr), Reference>,
    by_service: BTreeMap<Reference, BTreeSet<Reference>>,
    by_network: BTreeMap<Reference, BTreeSet<(Kind, Reference)>>,
    slots: BTreeSet<u32>,
    numbers: BTreeSet<u32>,
}

impl State {
    /// From stored objects.
    #[must_use]
    pub fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut state = Self::default();
        for object in objects {
            state.insert(object);
        }
        state
    }

    /// Carries out changes that the store has committed at this revision.
    pub fn apply(&mut self, changes: Vec<Change>, revision: u64) {
        for change in changes {
            match change {
                Change::Put(mut object) => {
                    self.remove(&object);
                    object.set_version(revision);
                    self.insert(object);
                }
                Change::Delete(object) => self.remove(&object),
            }
        }
    }

    /// The network that the interface is attached to.
    #[must_use]
    pub fn network_of_interface(&self, interface: &str) -> Option<&Reference> {
        self.by_interface.get(interface)
    }

    /// The service with this alias.
    #[must_use]
    pub fn service_of_alias(&self, alias: &str) -> Option<&Reference> {
        self.by_alias.get(alias)
    }

    /// The endpoint whose connection has this number.
    #[must_use]
    pub fn endpoint_of_link(&self, link_id: u32) -> Option<&Reference> {
        self.by_link_id.get(&link_id)
    }

    /// The endpoint with this address in the network.
    #[must_use]
    pub fn endpoint_of_address(&self, network: &Reference, address: IpAddr) -> Option<&Reference> {
        self.by_address.get(&(network.clone(), address))
    }

    /// The endpoints connected to the service.
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

    /// The services that are in the network.
    pub fn services_of_network(
        &self,
        network: &Reference,
    ) -> impl Iterator<Item = (&Reference, &Record<Service>)> {
        self.users_of_network(network)
            .filter(|(kind, _)| *kind == Kind::Service)
            .filter_map(|(_, reference)| self.services.get_key_value(reference))
    }

    /// The services and endpoints that are in the network.
    pub fn users_of_network(
        &self,
        network: &Reference,
    ) -> impl Iterator<Item = &(Kind, Reference)> {
        self.by_network.get(network).into_iter().flatten()
    }

    /// The endpoints that are in the network, with their addresses.
    pub fn addresses_of_network(
        &self,
        network: &Reference,
    ) -> impl Iterator<Item = (IpAddr, &Reference)> {
        self.users_of_network(network)
            .filter(|(kind, _)| *kind == Kind::Endpoint)
            .filter_map(|(_, reference)| self.endpoints.get_key_value(reference))
            .flat_map(|(reference, record)| {
                record
                    .object
                    .addresses
                    .iter()
                    .map(move |address| (*address, reference))
            })
    }

    /// The objects of one kind that belong to the tenant.
    pub fn owned<'a, T>(
        objects: &'a BTreeMap<Reference, T>,
        tenant: &'a Name,
    ) -> impl Iterator<Item = (&'a Reference, &'a T)> {
        let first = Reference::new(tenant.clone(), Name::lowest());
        objects
            .range(first..)
            .take_while(move |(reference, _)| reference.tenant == *tenant)
    }

    /// The lowest place in the data path's arrays that no connection has.
    #[must_use]
    pub fn free_slot(&self) -> u32 {
        (0..)
            .zip(&self.slots)
            .find(|(free, taken)| free != *taken)
            .map_or_else(
                || u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
                |(free, _)| free,
            )
    }

    /// Whether a network, service, resource or connection has this number.
    #[must_use]
    pub fn number_is_taken(&self, number: u32) -> bool {
        self.numbers.contains(&number) || self.by_link_id.contains_key(&number)
    }

    fn insert(&mut self, object: Object) {
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
                let users = self.by_network.entry(network).or_default();
                users.insert((Kind::Service, reference.clone()));
                self.numbers.insert(service.number);
                self.numbers.extend(service.resource_numbers.values());
                self.services.insert(reference, record);
            }
            Object::Endpoint(tenant, record) => {
                let reference = Reference::new(tenant, record.meta.name.clone());
                let endpoint = &record.object;
                let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
                for address in &endpoint.addresses {
                    let key = (network.clone(), *address);
                    self.by_address.insert(key, reference.clone());
                }
                let users = self.by_network.entry(network).or_default();
                users.insert((Kind::Endpoint, reference.clone()));
                let service = endpoint.service_identity.reference.clone();
                self.by_service
                    .entry(service)
                    .or_default()
                    .insert(reference.clone());
                self.by_link_id
                    .insert(endpoint.connection.link_id, reference.clone());
                self.slots.insert(endpoint.connection.slot);
                self.endpoints.insert(reference, record);
            }
        }
    }

    /// Removes what is there under the object's name.
    fn remove(&mut self, object: &Object) {
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
                    let network = Reference::new(tenant.clone(), old.object.spec.network);
                    remove_member(&mut self.by_network, &network, &(Kind::Service, reference));
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
                    for address in &endpoint.addresses {
                        self.by_address.remove(&(network.clone(), *address));
                    }
                    let user = (Kind::Endpoint, reference.clone());
                    remove_member(&mut self.by_network, &network, &user);
                    let service = endpoint.service_identity.reference;
                    remove_member(&mut self.by_service, &service, &reference);
                    self.by_link_id.remove(&endpoint.connection.link_id);
                    self.slots.remove(&endpoint.connection.slot);
                }
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
