//! Manifest: a document of many objects, which `apply` reads and `export` writes.

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
    ConnectionState, Endpoint, Identity, Kind, Name, Network, Record, Reference, Service, State,
    Tenant, endpoint::EndpointRequest, identity::IdentityRequest, network::NetworkRequest, schema,
    service::ServiceRequest, strict, tenant::TenantRequest,
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
        struct $name;

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

/// Desired state of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionEntry {
    /// Endpoint of the connection.
    pub endpoint: Reference,
    /// State of the connection: Pending, Approved or Rejected.
    pub state: ConnectionState,
    /// Reason of the decision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 1000)]
    pub reason: String,
}

/// Manifest: many objects in one document.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// Tenants, which only the operator may create, change or delete.
    #[serde(
        deserialize_with = "strict::objects",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(max_items = 200_000)]
    pub tenants: Vec<TenantRequest>,
    /// Mappings of external identities to roles in tenants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<IdentityEntry>, max_items = 200_000)]
    pub identities: Vec<ManifestEntry<IdentityRequest>>,
    /// Networks, which only the operator may create, change or delete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<NetworkEntry>, max_items = 200_000)]
    pub networks: Vec<ManifestEntry<NetworkRequest>>,
    /// Services of the tenants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<ServiceEntry>, max_items = 200_000)]
    pub services: Vec<ManifestEntry<ServiceRequest>>,
    /// Endpoints of the tenants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<EndpointEntry>, max_items = 200_000)]
    pub endpoints: Vec<ManifestEntry<EndpointRequest>>,
    /// Desired states of connections.
    #[serde(
        deserialize_with = "strict::objects",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schema(max_items = 200_000)]
    pub connections: Vec<ConnectionEntry>,
}

impl Manifest {
    /// Kinds of objects that a manifest can have: those without secrets. Each kind depends on earlier ones only.
    pub const KINDS: [Kind; 5] = [
        Kind::Tenant,
        Kind::Identity,
        Kind::Network,
        Kind::Service,
        Kind::Endpoint,
    ];

    /// Returns the manifest of all tenants for which `sees` is true. Objects with secrets are left out, and so are
    /// endpoints whose connection is Disconnected: such an endpoint can only be deleted.
    #[must_use]
    pub fn from_state(state: &State, sees: impl Fn(&Name) -> bool) -> Self {
        let mut manifest = Self::default();
        for (name, record) in state.tenants.iter().filter(|(name, _)| sees(name)) {
            manifest.tenants.push(tenant(name, record));
            let identities = State::owned_by(&state.identities, name);
            manifest
                .identities
                .extend(identities.map(|(reference, record)| identity(reference, record)));
            let networks = State::owned_by(&state.networks, name);
            manifest
                .networks
                .extend(networks.map(|(reference, record)| network(reference, record)));
            let services = State::owned_by(&state.services, name);
            manifest
                .services
                .extend(services.map(|(reference, record)| service(reference, record)));
            for (reference, record) in State::owned_by(&state.endpoints, name) {
                let connection = &record.object.connection;
                if connection.state == ConnectionState::Disconnected {
                    continue;
                }
                manifest.endpoints.push(endpoint(reference, record));
                manifest.connections.push(ConnectionEntry {
                    endpoint: reference.clone(),
                    state: connection.state,
                    reason: connection.reason.clone(),
                });
            }
        }
        manifest
    }

    /// Returns the references of the manifest's objects of a kind.
    #[must_use]
    pub fn references(&self, kind: Kind) -> Vec<Reference> {
        fn collect_references<T: NamedRequest>(list: &[ManifestEntry<T>]) -> Vec<Reference> {
            list.iter().filter_map(ManifestEntry::reference).collect()
        }
        match kind {
            Kind::Tenant => {
                let names = self.tenants.iter().filter_map(|tenant| tenant.name.clone());
                names
                    .map(|name| Reference::new(name.clone(), name))
                    .collect()
            }
            Kind::Identity => collect_references(&self.identities),
            Kind::Network => collect_references(&self.networks),
            Kind::Service => collect_references(&self.services),
            Kind::Endpoint => collect_references(&self.endpoints),
            Kind::Token | Kind::Webhook => Vec::new(),
        }
    }
}

fn tenant(name: &Name, record: &Record<Tenant>) -> TenantRequest {
    TenantRequest {
        name: Some(name.clone()),
        version: None,
        labels: Some(record.meta.labels.clone()).filter(|labels| !labels.is_empty()),
        quotas: record.object.quotas,
    }
}

fn manifest_entry<T>(reference: &Reference, request: T) -> ManifestEntry<T> {
    ManifestEntry {
        tenant: reference.tenant.clone(),
        alias: None,
        request,
    }
}

fn identity(reference: &Reference, record: &Record<Identity>) -> ManifestEntry<IdentityRequest> {
    let Identity { claim, role } = record.object.clone();
    let request = IdentityRequest {
        name: reference.name.clone(),
        issuer: claim.issuer,
        claim: claim.claim,
        value: claim.value,
        authority: claim.authority.map(Into::into),
        role,
        labels: Some(record.meta.labels.clone()).filter(|labels| !labels.is_empty()),
    };
    manifest_entry(reference, request)
}

fn network(reference: &Reference, record: &Record<Network>) -> ManifestEntry<NetworkRequest> {
    let Network {
        attachments,
        isolated,
        mtu,
        prefixes,
        routers,
        pool,
        number: _,
    } = record.object.clone();
    let request = NetworkRequest {
        name: Some(reference.name.clone()),
        version: None,
        labels: Some(record.meta.labels.clone()).filter(|labels| !labels.is_empty()),
        attachments,
        isolated,
        mtu,
        prefixes,
        routers,
        pool,
    };
    manifest_entry(reference, request)
}

fn service(reference: &Reference, record: &Record<Service>) -> ManifestEntry<ServiceRequest> {
    let request = ServiceRequest {
        name: Some(reference.name.clone()),
        version: None,
        labels: Some(record.meta.labels.clone()).filter(|labels| !labels.is_empty()),
        spec: record.object.spec.clone(),
    };
    ManifestEntry {
        alias: Some(record.object.alias.clone()),
        ..manifest_entry(reference, request)
    }
}

fn endpoint(reference: &Reference, record: &Record<Endpoint>) -> ManifestEntry<EndpointRequest> {
    let endpoint = record.object.clone();
    let request = EndpointRequest {
        name: Some(reference.name.clone()),
        version: None,
        labels: Some(record.meta.labels.clone()).filter(|labels| !labels.is_empty()),
        network: endpoint.network,
        addresses: endpoint.addresses,
        service: endpoint.service,
        resource: Some(endpoint.resource),
        request_message: endpoint.request_message,
    };
    manifest_entry(reference, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_has_every_kind_without_secrets() {
        for kind in Kind::ALL {
            let has_secret = matches!(kind, Kind::Token | Kind::Webhook);
            assert_eq!(Manifest::KINDS.contains(kind), !has_secret, "{kind}");
        }
    }
}
