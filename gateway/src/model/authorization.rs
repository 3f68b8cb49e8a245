//! Authorization of changes. Every change that an operation returns passes [`authorize`] before it is committed,
//! for every caller and every API route.
//!
//! The decision depends on the difference between the object before and after the change, not on the request: a
//! manifest that creates an endpoint and approves its connection needs the permission to approve. A difference that
//! no rule names needs [`Permission::ManageGateway`], which no role of a tenant includes.

use crate::model::{
    Change, Connection, ConnectionState, Endpoint, Kind, Name, Object, Permission, Principal,
    Problem, ProblemCode, Record, Reference, State, connection::AUTO_APPROVAL,
};

/// Permission that one change needs in one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Requirement<'a> {
    tenant: &'a Name,
    permission: Permission,
}

/// Refuses changes to the state `before` that the principal may not make.
///
/// # Errors
/// [`ProblemCode::NotFound`] if the principal has no role in the tenant of an object, [`ProblemCode::Forbidden`] if
/// its role does not include what a change needs.
pub fn authorize(before: &State, changes: &[Change], principal: &Principal) -> Result<(), Problem> {
    if principal.is_operator() {
        return Ok(());
    }
    for change in changes {
        for Requirement { tenant, permission } in requirements(before, changes, change) {
            match permission {
                Permission::Decisions => {
                    require_provider(principal, tenant, &change.object().reference())?;
                }
                _ => principal.require(tenant, permission)?,
            }
        }
    }
    Ok(())
}

/// Requires the permission to decide about an endpoint's connection. The refusal does not name the provider to a
/// principal without a role in the provider's tenant: a consumer that knows a service by its alias does not know its
/// provider.
///
/// # Errors
/// [`ProblemCode::Forbidden`].
pub fn require_provider(
    principal: &Principal,
    provider: &Name,
    endpoint: &Reference,
) -> Result<(), Problem> {
    if principal.can_see(provider) {
        return principal.require(provider, Permission::Decisions);
    }
    let detail = format!("the connection of {endpoint} is decided by the service's provider");
    Err(Problem::new(ProblemCode::Forbidden, detail))
}

/// Returns the permissions that a change needs, each with the tenant in which it is needed.
fn requirements<'a>(
    before: &'a State,
    changes: &'a [Change],
    change: &'a Change,
) -> Vec<Requirement<'a>> {
    let object = change.object();
    let require_of_owner = |permission| {
        vec![Requirement {
            tenant: object.tenant(),
            permission,
        }]
    };
    match (change, object) {
        (_, Object::Tenant(_) | Object::Network(..)) => require_of_owner(Permission::ManageGateway),
        (_, Object::Token(..) | Object::Identity(..) | Object::Webhook(..)) => {
            require_of_owner(Permission::ManageCredentials)
        }
        (Change::Delete(_), Object::Service(..)) => require_of_owner(Permission::Services),
        (Change::Delete(_), Object::Endpoint(..)) => require_of_owner(Permission::Endpoints),
        (Change::Put(_), Object::Service(_, new)) => {
            let old = before.services.get(&object.reference());
            let keeps_identity = old.is_none_or(|old| {
                old.meta.uid != new.meta.uid
                    || (&old.object.alias, old.object.number)
                        == (&new.object.alias, new.object.number)
            });
            require_of_owner(if keeps_identity {
                Permission::Services
            } else {
                Permission::ManageGateway
            })
        }
        (Change::Put(_), Object::Endpoint(tenant, new)) => {
            let old = before.endpoints.get(&object.reference());
            let old = old.filter(|old| old.meta.uid == new.meta.uid);
            let provider = &new.object.service_identity.reference.tenant;
            endpoint_permissions(old, new, || {
                is_initial(before, changes, tenant, &new.object)
                    && !before.number_is_taken(new.object.connection.link_id)
            })
            .into_iter()
            .map(|permission| Requirement {
                tenant: match permission {
                    Permission::Decisions => provider,
                    _ => tenant,
                },
                permission,
            })
            .collect()
        }
    }
}

/// Returns the permissions that the difference between two versions of an endpoint needs. `old` is `None` for an
/// endpoint that is created.
fn endpoint_permissions(
    old: Option<&Record<Endpoint>>,
    new: &Record<Endpoint>,
    is_initial: impl FnOnce() -> bool,
) -> Vec<Permission> {
    let old = old.filter(|old| !is_reconnection(old, new));
    let Some(old) = old else {
        return if is_initial() {
            vec![Permission::Endpoints]
        } else {
            vec![Permission::Endpoints, Permission::Decisions]
        };
    };
    let mut permissions = Vec::new();
    // A consumer may change the labels, and with them the time of the change.
    let mut expected = old.clone();
    if (&old.meta.labels, old.meta.updated_at) != (&new.meta.labels, new.meta.updated_at) {
        permissions.push(Permission::Endpoints);
        expected.meta.labels.clone_from(&new.meta.labels);
        expected.meta.updated_at = new.meta.updated_at;
    }
    // A provider may change the decision, but neither the number of the connection nor its slot.
    if old.object.connection != new.object.connection {
        permissions.push(Permission::Decisions);
        expected.object.connection = Connection {
            link_id: old.object.connection.link_id,
            slot: old.object.connection.slot,
            requested_at: old.object.connection.requested_at,
            ..new.object.connection.clone()
        };
    }
    // Nothing else may change, so that an approval keeps applying to what was approved.
    expected.meta.version = new.meta.version;
    if expected != *new {
        permissions.push(Permission::ManageGateway);
    }
    permissions
}

/// Returns true if the change replaces a Disconnected connection by a new one, and leaves alone what makes the endpoint
/// what it is: its identity, its network, its addresses and its slot. Such a change needs the permissions of a new
/// endpoint.
fn is_reconnection(old: &Record<Endpoint>, new: &Record<Endpoint>) -> bool {
    let (before, after) = (&old.object, &new.object);
    before.connection.state == ConnectionState::Disconnected
        && before.connection.link_id != after.connection.link_id
        && before.connection.slot == after.connection.slot
        && (&old.meta.name, old.meta.created_at) == (&new.meta.name, new.meta.created_at)
        && (&before.network, &before.addresses) == (&after.network, &after.addresses)
}

/// Returns true if the connection of a new endpoint is as the gateway creates it without a decision of the provider:
/// Pending, or Approved by the service's automatic approval.
fn is_initial(before: &State, changes: &[Change], tenant: &Name, endpoint: &Endpoint) -> bool {
    let connection = &endpoint.connection;
    match connection.state {
        ConnectionState::Pending => {
            connection.generation == 0
                && connection.decided_by.is_none()
                && connection.decided_at.is_none()
                && connection.reason.is_empty()
        }
        ConnectionState::Approved => {
            let reference = &endpoint.service_identity.reference;
            let changed = changes
                .iter()
                .rev()
                .find_map(|change| match change.object() {
                    object @ Object::Service(_, record) if object.reference() == *reference => {
                        Some(matches!(change, Change::Put(_)).then_some(record))
                    }
                    _ => None,
                });
            let service = changed.unwrap_or_else(|| before.services.get(reference));
            connection.decided_by.as_deref() == Some(AUTO_APPROVAL)
                && service.is_some_and(|service| {
                    service.meta.uid == endpoint.service_identity.uid
                        && service.object.spec.auto_approves(tenant)
                })
        }
        ConnectionState::Rejected | ConnectionState::Disconnected => false,
    }
}

/// Refuses a manifest's connection entry for an endpoint that the principal may not see. The refusal is the same as
/// for an endpoint that does not exist.
///
/// # Errors
/// [`ProblemCode::NotFound`].
pub fn require_visible_connection(
    state: &State,
    endpoint: &Reference,
    principal: &Principal,
) -> Result<(), Problem> {
    let visible = principal.can_see(&endpoint.tenant)
        || state.endpoints.get(endpoint).is_some_and(|record| {
            principal.can_see(&record.object.service_identity.reference.tenant)
        });
    if visible {
        return Ok(());
    }
    Err(Problem::not_found(Kind::Endpoint, endpoint))
}

#[cfg(test)]
mod tests;
