//! Addresses that objects claim. Pure.

use std::collections::BTreeMap;

use crate::{
    address_conflict::{ClaimKind, NetworkAddress},
    model::{Endpoint, Name, Reference, Service, State},
};

/// Claimed addresses with their use.
pub type Claims = BTreeMap<NetworkAddress, ClaimKind>;

/// Returns the addresses that all objects claim.
#[must_use]
pub fn claims_of_state(state: &State) -> Claims {
    let mut claims = Claims::new();
    for (reference, record) in &state.services {
        add_service(&reference.tenant, &record.object, &mut claims);
    }
    for (reference, record) in &state.endpoints {
        add_endpoint(&reference.tenant, &record.object, &mut claims);
    }
    claims
}

/// Returns the addresses that a service claims.
#[must_use]
pub fn claims_of_service(tenant: &Name, service: &Service) -> Claims {
    let mut claims = Claims::new();
    add_service(tenant, service, &mut claims);
    claims
}

/// Returns the addresses that an endpoint claims.
#[must_use]
pub fn claims_of_endpoint(tenant: &Name, endpoint: &Endpoint) -> Claims {
    let mut claims = Claims::new();
    add_endpoint(tenant, endpoint, &mut claims);
    claims
}

fn add_service(tenant: &Name, service: &Service, claims: &mut Claims) {
    let network = Reference::new(tenant.clone(), service.spec.network.clone());
    let addresses = service.spec.nat_addresses.iter();
    let addresses = addresses.flat_map(|range| range.iter());
    claims.extend(addresses.map(|address| ((network.clone(), address), ClaimKind::Snat)));
}

fn add_endpoint(tenant: &Name, endpoint: &Endpoint, claims: &mut Claims) {
    let network = Reference::new(tenant.clone(), endpoint.network.clone());
    let addresses = endpoint.addresses.iter();
    claims.extend(addresses.map(|address| ((network.clone(), *address), ClaimKind::Endpoint)));
}
