//! Entries of a manifest: the request of an object, with its owner.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, Visitor,
        value::MapAccessDeserializer,
    },
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::model::{
    Name, Reference, endpoint::EndpointRequest, identity::IdentityRequest, network::NetworkRequest,
    schema, service::ServiceRequest,
};

/// Object of a tenant in a manifest.
#[derive(Clone, Debug, Serialize)]
pub struct ManifestEntry<T> {
    /// Owner of the object.
    pub tenant: Name,
    /// Alias of a service. A new service without one gets a random alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Requested fields of the object.
    #[serde(flatten)]
    pub request: T,
}

// A derived implementation with `flatten` would accept unknown fields and buffer the whole object.
impl<'de, T: Deserialize<'de> + NamedRequest> Deserialize<'de> for ManifestEntry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ManifestEntryVisitor(PhantomData))
    }
}

struct ManifestEntryVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + NamedRequest> Visitor<'de> for ManifestEntryVisitor<T> {
    type Value = ManifestEntry<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ManifestEntry<T>, A::Error> {
        let mut fields = EntryFields::default();
        let request_fields = RequestMapAccess {
            map,
            fields: &mut fields,
            has_alias: T::HAS_ALIAS,
        };
        let request = T::deserialize(MapAccessDeserializer::new(request_fields))?;
        let tenant = fields
            .tenant
            .ok_or_else(|| A::Error::custom("an entry has no owner: set tenant"))?;
        Ok(ManifestEntry {
            tenant,
            alias: fields.alias,
            request,
        })
    }
}

/// Members of a [`ManifestEntry`] that are not part of its request.
#[derive(Default)]
struct EntryFields {
    tenant: Option<Name>,
    alias: Option<String>,
}

/// Name of a member.
struct FieldName(Box<str>);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = FieldName;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a field")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FieldName, E> {
                Ok(FieldName(text.into()))
            }
        }

        deserializer.deserialize_identifier(NameVisitor)
    }
}

/// Map of the members that are part of a [`ManifestEntry`]'s request. The other members are moved into [`EntryFields`]
/// while the map is read.
struct RequestMapAccess<'a, A> {
    map: A,
    fields: &'a mut EntryFields,
    has_alias: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for RequestMapAccess<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(FieldName(key)) = self.map.next_key()? {
            match &*key {
                "tenant" if self.fields.tenant.is_some() => {
                    return Err(A::Error::duplicate_field("tenant"));
                }
                "tenant" => self.fields.tenant = Some(self.map.next_value()?),
                "alias" if self.has_alias && self.fields.alias.is_some() => {
                    return Err(A::Error::duplicate_field("alias"));
                }
                "alias" if self.has_alias => self.fields.alias = Some(self.map.next_value()?),
                _ => return seed.deserialize((*key).into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Request that has the name of its object.
pub trait NamedRequest {
    /// True if the object can have an alias.
    const HAS_ALIAS: bool = false;
    /// Returns the name of the object.
    fn name(&self) -> Option<&Name>;
}

macro_rules! named {
    ($($type:ty, $alias:literal, $request:ident => $name:expr;)*) => {$(
        impl NamedRequest for $type {
            const HAS_ALIAS: bool = $alias;
            fn name(&self) -> Option<&Name> {
                let $request = self;
                $name
            }
        }
    )*};
}

named! {
    NetworkRequest, false, request => request.name.as_ref();
    ServiceRequest, true, request => request.name.as_ref();
    EndpointRequest, false, request => request.name.as_ref();
    IdentityRequest, false, request => Some(&request.name);
}

impl<T: NamedRequest> ManifestEntry<T> {
    /// Returns the owner and the name, or `None` for an entry without a name.
    pub fn reference(&self) -> Option<Reference> {
        let name = self.request.name()?;
        Some(Reference::new(self.tenant.clone(), name.clone()))
    }
}

/// Fields that every [`ManifestEntry`] has beside those of its request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the schema is used")]
struct ManifestEntryCommonFields {
    /// Owner of the object.
    tenant: Name,
}

/// Fields that an entry for a service has in addition.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the schema is used")]
struct ServiceEntryFields {
    /// Alias of the service, to keep one that it had before. Only the operator may set it for a new service.
    #[schema(max_length = 256)]
    alias: Option<String>,
}

macro_rules! manifest_entry_schemas {
    ($($name:ident, $request:ty $(, $more:ty)*;)*) => {$(
        /// Schema of an entry for a request.
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let parts = [ManifestEntryCommonFields::schema(), <$request>::schema() $(, <$more>::schema())*];
                schema::merged(parts, "Object of a tenant")
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                ManifestEntryCommonFields::schemas(schemas);
                <$request>::schemas(schemas);
            }
        }
    )*};
}

manifest_entry_schemas! {
    IdentityEntry, IdentityRequest;
    NetworkEntry, NetworkRequest;
    ServiceEntry, ServiceRequest, ServiceEntryFields;
    EndpointEntry, EndpointRequest;
}
