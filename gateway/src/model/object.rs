//! Objects of every kind, their keys and encoding in the store, and changes of them.

use serde::de::DeserializeOwned;

use crate::model::{
    Endpoint, Identity, Kind, Meta, Name, Network, Record, Reference, Service, Tenant, Token,
    Version, Webhook, kind::objects,
};

macro_rules! define_object {
    (
        $(#[$tenant_doc:meta])* Tenant $tenant_singular:ident $tenant_plural:ident;
        $($(#[$doc:meta])* $kind:ident $singular:ident $plural:ident;)*
    ) => {
        /// Object of any kind, with the tenant that owns it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Object {
            $(#[$tenant_doc])* Tenant(Record<Tenant>),
            $($(#[$doc])* $kind(Name, Record<$kind>),)*
        }

        impl Object {
            /// Returns the kind of the object.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    Self::Tenant(..) => Kind::Tenant,
                    $(Self::$kind(..) => Kind::$kind,)*
                }
            }

            /// Returns the identity, history and labels of the object.
            #[must_use]
            pub const fn meta(&self) -> &Meta {
                match self {
                    Self::Tenant(record) => &record.meta,
                    $(Self::$kind(_, record) => &record.meta,)*
                }
            }

            /// Returns the metadata for modification.
            pub const fn meta_mut(&mut self) -> &mut Meta {
                match self {
                    Self::Tenant(record) => &mut record.meta,
                    $(Self::$kind(_, record) => &mut record.meta,)*
                }
            }

            /// Returns the tenant that owns the object; for a tenant, its own name.
            #[must_use]
            pub const fn tenant(&self) -> &Name {
                match self {
                    Self::Tenant(record) => &record.meta.name,
                    $(Self::$kind(owner, _) => owner,)*
                }
            }

            /// Encodes the object as its value in the store.
            ///
            /// # Errors
            /// Never for the present types; serde's signature requires it.
            pub fn encode(&self) -> serde_json::Result<String> {
                match self {
                    Self::Tenant(record) => serde_json::to_string(record),
                    $(Self::$kind(_, record) => serde_json::to_string(record),)*
                }
            }

            /// Encodes the object as a JSON tree.
            ///
            /// # Errors
            /// As for [`Self::encode`].
            pub fn to_value(&self) -> serde_json::Result<serde_json::Value> {
                match self {
                    Self::Tenant(record) => serde_json::to_value(record),
                    $(Self::$kind(_, record) => serde_json::to_value(record),)*
                }
            }

            /// Decodes the value of a key, whose parts after the kind are `path`: the owner and the name.
            fn decode_value(
                kind: Kind,
                path: &[&str],
                key: &str,
                value: &str,
            ) -> Result<Self, DecodeError> {
                match (kind, path) {
                    (Kind::Tenant, [_]) => Ok(Self::Tenant(parse(key, value)?)),
                    $((Kind::$kind, [owner, _]) => {
                        let owner = owner.parse().map_err(|_| DecodeError::Key(key.to_owned()))?;
                        Ok(Self::$kind(owner, parse(key, value)?))
                    })*
                    _ => Err(DecodeError::Key(key.to_owned())),
                }
            }
        }
    };
}
objects!(define_object);

impl Object {
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

    /// Decodes a stored object.
    ///
    /// # Errors
    /// [`DecodeError`] if the key or the value is not one that [`Object::key`] and [`Object::encode`] produce.
    pub fn decode(key: &str, value: &str, revision: u64) -> Result<Self, DecodeError> {
        let unknown = || DecodeError::Key(key.to_owned());
        let parts: Vec<&str> = key.split('/').collect();
        let (plural, path) = parts.split_first().ok_or_else(unknown)?;
        let kind = Kind::from_plural(plural).ok_or_else(unknown)?;
        let mut object = Self::decode_value(kind, path, key, value)?;
        object.meta_mut().version = Version::from_revision(revision);
        if object.key() == key {
            Ok(object)
        } else {
            Err(unknown())
        }
    }
}

fn parse<T: DeserializeOwned>(key: &str, value: &str) -> Result<T, DecodeError> {
    serde_json::from_str(value).map_err(|error| DecodeError::Value {
        key: key.to_owned(),
        error,
    })
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
