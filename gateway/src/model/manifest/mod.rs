//! Manifest: a document of many objects, which `apply` reads and `export` writes.

mod entry;
mod export;

pub use entry::{ManifestEntry, NamedRequest};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    ConnectionState, Kind, Reference,
    endpoint::EndpointRequest,
    identity::IdentityRequest,
    manifest::entry::{EndpointEntry, IdentityEntry, NetworkEntry, ServiceEntry},
    network::NetworkRequest,
    service::ServiceRequest,
    strict,
    tenant::TenantRequest,
};

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
