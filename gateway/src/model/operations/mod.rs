//! Operations: one function for each, from the state and a request to the changes.

mod access;
mod allocation;
mod apply;
mod connection;
mod endpoint;
mod network;
mod reconnect;
mod service;
mod tenant;
mod webhook;

pub use access::{create_identity, create_token, delete_identity, delete_token};
pub use apply::{ApplyOptions, DiffAction, FieldDiff, ObjectDiff, apply, export};
pub use connection::{decide, find_connection};
pub use endpoint::{create_endpoint, delete_endpoint, update_endpoint};
pub use network::{create_network, delete_network, update_network};
pub use reconnect::reconnect_endpoint;
pub(crate) use service::is_alias_for;
pub use service::{create_service, delete_service, update_service};
pub use tenant::{create_tenant, delete_tenant, update_tenant};
pub use webhook::{create_webhook, delete_webhook};

use crate::model::{
    Kind, Name, Problem, ProblemCode, Record, Reference, State, Tenant, identity::Authority,
    tenant::Quotas,
};

/// Configuration that operations depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Domain of every alias, its last part.
    pub alias_domain: String,
    /// Quotas of a tenant that has none of its own.
    pub default_quotas: DefaultQuotas,
    /// Trusted OpenID Connect issuers.
    pub issuers: Vec<String>,
    /// Certificate authorities whose client certificates are accepted.
    pub authorities: Vec<Authority>,
    /// Capacity of the data path's arrays of connections.
    pub max_connections: u32,
}

/// Default quotas: the maximum number of objects of each kind that a tenant owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultQuotas {
    /// Maximum number of networks.
    pub networks: u32,
    /// Maximum number of services.
    pub services: u32,
    /// Maximum number of endpoints.
    pub endpoints: u32,
}

impl Default for DefaultQuotas {
    fn default() -> Self {
        Self {
            networks: 64,
            services: 256,
            endpoints: 1_024,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            alias_domain: "privatelink.internal".to_owned(),
            default_quotas: DefaultQuotas::default(),
            issuers: Vec::new(),
            authorities: Vec::new(),
            max_connections: gateway_common::maps::MAX_CONNECTIONS,
        }
    }
}

fn existing_tenant<'a>(state: &'a State, name: &Name) -> Result<&'a Record<Tenant>, Problem> {
    state
        .tenants
        .get(name)
        .ok_or_else(|| Problem::no_tenant(name))
}

/// Returns the name in a request that creates an object.
///
/// # Errors
/// The request has no name.
pub fn required_name(name: Option<Name>) -> Result<Name, Problem> {
    name.ok_or_else(|| Problem::invalid("name", "a new object needs a name: set name"))
}

/// Refuses a name in the body of a change that is not the one in the path.
fn check_same_name(given: Option<&Name>, actual: &Name) -> Result<(), Problem> {
    match given {
        Some(given) if given != actual => Err(Problem::invalid(
            "name",
            format!("a name can't be changed: the path says {actual}, the body {given}"),
        )),
        _ => Ok(()),
    }
}

fn refuse_existing(exists: bool, kind: Kind, name: &Reference) -> Result<(), Problem> {
    if exists {
        return Err(Problem::new(
            ProblemCode::AlreadyExists,
            format!("{kind} {name} exists already"),
        )
        .at("name"));
    }
    Ok(())
}

/// Refuses another object of the kind if the tenant has as many as its quota allows.
fn check_quota(
    tenant: &Record<Tenant>,
    policy: &Policy,
    kind: Kind,
    has: usize,
) -> Result<(), Problem> {
    let Quotas {
        networks,
        services,
        endpoints,
    } = tenant.object.quotas;
    let limit = match kind {
        Kind::Tenant | Kind::Token | Kind::Identity | Kind::Webhook => return Ok(()),
        Kind::Network => networks.unwrap_or(policy.default_quotas.networks),
        Kind::Service => services.unwrap_or(policy.default_quotas.services),
        Kind::Endpoint => endpoints.unwrap_or(policy.default_quotas.endpoints),
    };
    if u32::try_from(has).is_ok_and(|has| has < limit) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemCode::LimitReached,
        format!(
            "tenant {} has {has} {} of the {limit} that its quota allows",
            tenant.meta.name,
            kind.plural()
        ),
    ))
}

#[cfg(test)]
pub(crate) mod tests;
