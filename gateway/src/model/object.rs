//! Objects of every kind, their keys and encoding in the store, and changes of them.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::model::{
    Endpoint, Identity, Meta, Name, Network, Record, Reference, Service, Tenant, Token, Version,
    Webhook,
};

/// Kind of an object.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Tenant.
    Tenant,
    /// Network.
    Network,
    /// Service.
    Service,
    /// Endpoint with its connection.
    Endpoint,
    /// Access token of a tenant.
    Token,
    /// Mapping of an external identity to a role in a tenant.
    Identity,
    /// URL that a tenant's events are delivered to.
    Webhook,
}

impl Kind {
    /// Returns the plural, as API paths and store keys use it.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Network => "networks",
            Self::Service => "services",
            Self::Endpoint => "endpoints",
            Self::Token => "tokens",
            Self::Identity => "identities",
            Self::Webhook => "webhooks",
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
            Self::Token => "token",
            Self::Identity => "identity",
            Self::Webhook => "webhook",
        })
    }
}

/// Object of any kind, with the tenant that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// Tenant.
    Tenant(Record<Tenant>),
    /// Network.
    Network(Name, Record<Network>),
    /// Service.
    Service(Name, Record<Service>),
    /// Endpoint with its connection.
    Endpoint(Name, Record<Endpoint>),
    /// Access token of a tenant.
    Token(Name, Record<Token>),
    /// Mapping of an external identity to a role in a tenant.
    Identity(Name, Record<Identity>),
    /// URL that a tenant's events are delivered to.
    Webhook(Name, Record<Webhook>),
}

/// Change of one object by an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Creates the object if it carries revision 0, else replaces the version that it carries.
    Put(Object),
    /// Deletes the object.
    Delete(Object),
}

impl Change {
    /// Returns the object of the change.
    #[must_use]
    pub const fn object(&self) -> &Object {
        match self {
            Self::Put(object) | Self::Delete(object) => object,
        }
    }
}

/// Error of decoding a stored object.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The key is not that of a known kind, or does not match the value.
    #[error("store key {0:?} is unknown or does not match its value")]
    Key(String),
    /// The value is not an object of the kind that the key names.
    #[error("store entry {key:?} can't be parsed: {error}")]
    Value {
        /// Key of the entry.
        key: String,
        /// Cause.
        error: serde_json::Error,
    },
}

impl Object {
    /// Returns the kind of the object.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Tenant(..) => Kind::Tenant,
            Self::Network(..) => Kind::Network,
            Self::Service(..) => Kind::Service,
            Self::Endpoint(..) => Kind::Endpoint,
            Self::Token(..) => Kind::Token,
            Self::Identity(..) => Kind::Identity,
            Self::Webhook(..) => Kind::Webhook,
        }
    }

    /// Returns the identity, history and labels of the object.
    #[must_use]
    pub const fn meta(&self) -> &Meta {
        match self {
            Self::Tenant(record) => &record.meta,
            Self::Network(_, record) => &record.meta,
            Self::Service(_, record) => &record.meta,
            Self::Endpoint(_, record) => &record.meta,
            Self::Token(_, record) => &record.meta,
            Self::Identity(_, record) => &record.meta,
            Self::Webhook(_, record) => &record.meta,
        }
    }

    /// Returns the metadata for modification.
    pub const fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Tenant(record) => &mut record.meta,
            Self::Network(_, record) => &mut record.meta,
            Self::Service(_, record) => &mut record.meta,
            Self::Endpoint(_, record) => &mut record.meta,
            Self::Token(_, record) => &mut record.meta,
            Self::Identity(_, record) => &mut record.meta,
            Self::Webhook(_, record) => &mut record.meta,
        }
    }

    /// Returns the tenant that owns the object; for a tenant, its own name.
    #[must_use]
    pub const fn tenant(&self) -> &Name {
        match self {
            Self::Tenant(record) => &record.meta.name,
            Self::Network(owner, _)
            | Self::Service(owner, _)
            | Self::Endpoint(owner, _)
            | Self::Token(owner, _)
            | Self::Identity(owner, _)
            | Self::Webhook(owner, _) => owner,
        }
    }

    /// Returns the name that users know: `TENANT`, or `TENANT/NAME`.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Tenant(record) => record.meta.name.to_string(),
            _ => self.reference().to_string(),
        }
    }

    /// Returns the owner and the name. The reference of a tenant has its name twice.
    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference::new(self.tenant().clone(), self.meta().name.clone())
    }

    /// Returns the key in the store: `tenants/T`, `networks/T/N`, ...
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind().plural(), self.path())
    }

    /// Returns the version that the object carries.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.meta().version
    }

    /// Encodes the object as its value in the store.
    ///
    /// # Errors
    /// Never for the present types; serde's signature requires it.
    pub fn encode(&self) -> serde_json::Result<String> {
        match self {
            Self::Tenant(record) => serde_json::to_string(record),
            Self::Network(_, record) => serde_json::to_string(record),
            Self::Service(_, record) => serde_json::to_string(record),
            Self::Endpoint(_, record) => serde_json::to_string(record),
            Self::Token(_, record) => serde_json::to_string(record),
            Self::Identity(_, record) => serde_json::to_string(record),
            Self::Webhook(_, record) => serde_json::to_string(record),
        }
    }

    /// Encodes the object as a JSON tree.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        match self {
            Self::Tenant(record) => serde_json::to_value(record),
            Self::Network(_, record) => serde_json::to_value(record),
            Self::Service(_, record) => serde_json::to_value(record),
            Self::Endpoint(_, record) => serde_json::to_value(record),
            Self::Token(_, record) => serde_json::to_value(record),
            Self::Identity(_, record) => serde_json::to_value(record),
            Self::Webhook(_, record) => serde_json::to_value(record),
        }
    }

    /// Decodes a stored object.
    ///
    /// # Errors
    /// [`DecodeError`] if the key or the value is not one that [`Object::key`] and [`Object::encode`] produce.
    pub fn decode(key: &str, value: &str, revision: u64) -> Result<Self, DecodeError> {
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
            ["tokens", owner, _] => Self::Token(tenant(owner)?, read(key, value)?),
            ["identities", owner, _] => Self::Identity(tenant(owner)?, read(key, value)?),
            ["webhooks", owner, _] => Self::Webhook(tenant(owner)?, read(key, value)?),
            _ => return Err(unknown()),
        };
        object.meta_mut().version = Version::from_revision(revision);
        if object.key() == key {
            Ok(object)
        } else {
            Err(unknown())
        }
    }
}
