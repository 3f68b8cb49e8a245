//! Objects of any kind, and changes of them: what is stored, by which key.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::model::{
    Endpoint, Identity, Meta, Name, Network, Record, Reference, Service, Tenant, Token, Version,
    Webhook,
};

/// The kinds of objects.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
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
    /// A token, by which a program or person acts for a tenant.
    Token,
    /// Who, of those that another system knows, acts for a tenant.
    Identity,
    /// Where a tenant wants to be told of events.
    Webhook,
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

/// An object of any kind, with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A tenant.
    Tenant(Record<Tenant>),
    /// A network.
    Network(Name, Record<Network>),
    /// A service.
    Service(Name, Record<Service>),
    /// An endpoint, with its connection.
    Endpoint(Name, Record<Endpoint>),
    /// A token, by which a program or person acts for a tenant.
    Token(Name, Record<Token>),
    /// Who, of those that another system knows, acts for a tenant.
    Identity(Name, Record<Identity>),
    /// Where a tenant wants to be told of events.
    Webhook(Name, Record<Webhook>),
}

/// One thing that an operation changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is created (revision 0) or takes the place of the version that it carries.
    Put(Object),
    /// This object is removed.
    Delete(Object),
}

impl Change {
    /// What is changed.
    #[must_use]
    pub const fn object(&self) -> &Object {
        match self {
            Self::Put(object) | Self::Delete(object) => object,
        }
    }
}

/// Why a stored object can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The key is of no known form.
    #[error("the key {0:?} is unknown, or not that of its value")]
    Key(String),
    /// The value is not what the key says.
    #[error("the entry {key:?} can't be read: {error}")]
    Value {
        /// Which one.
        key: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

impl Object {
    /// What it is.
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

    /// Its identity and history.
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

    /// The same, to be changed.
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

    /// The tenant that it belongs to, or is.
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

    /// What people call it: `TENANT`, or `TENANT/NAME`.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Tenant(record) => record.meta.name.to_string(),
            _ => self.reference().to_string(),
        }
    }

    /// Owner and name; for a tenant its name twice.
    #[must_use]
    pub fn reference(&self) -> Reference {
        Reference::new(self.tenant().clone(), self.meta().name.clone())
    }

    /// Its key in the store: `tenants/T`, `networks/T/N`, ...
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind().plural(), self.path())
    }

    /// The version that it carries.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.meta().version
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
            Self::Token(_, record) => serde_json::to_string(record),
            Self::Identity(_, record) => serde_json::to_string(record),
            Self::Webhook(_, record) => serde_json::to_string(record),
        }
    }

    /// The same, as a tree.
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

    /// Reads a stored object.
    ///
    /// # Errors
    /// When key or value are not what [`Object::key`] and [`Object::encode`] make.
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
