//! Manifest of a state.

use crate::model::{
    ConnectionState, Endpoint, Identity, Name, Network, Record, Reference, Service, State, Tenant,
    endpoint::EndpointRequest,
    identity::IdentityRequest,
    manifest::{ConnectionEntry, Manifest, entry::ManifestEntry},
    network::NetworkRequest,
    service::ServiceRequest,
    tenant::TenantRequest,
};

impl Manifest {
    /// Returns the manifest of all tenants for which `sees` is true. Objects with secrets are left out, and so are
    /// endpoints whose connection is Disconnected: an entry would request a new connection.
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
        force: false,
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
