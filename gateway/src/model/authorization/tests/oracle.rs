//! Table of roles, applied to the states before and after a step. Written independently of the code under test.

use proptest::{prelude::*, test_runner::TestCaseError};

use super::*;

/// Returns true if the principal has one of the roles. Written independently of the code under test.
fn has_role(principal: &Principal, tenant: &Name, roles: [Role; 2]) -> bool {
    match &principal.access {
        Access::Operator => true,
        Access::Tenants(has) => has.get(tenant).is_some_and(|role| roles.contains(role)),
    }
}

fn is_provider(principal: &Principal, tenant: &Name) -> bool {
    has_role(principal, tenant, [Role::Provider, Role::Admin])
}

fn is_consumer(principal: &Principal, tenant: &Name) -> bool {
    has_role(principal, tenant, [Role::Consumer, Role::Admin])
}

/// Fails if the caller may not make the step from one state to the other.
pub(super) fn check_permissions(
    before: &State,
    after: &State,
    principal: &Principal,
) -> Result<(), TestCaseError> {
    for (at, new) in &after.endpoints {
        let endpoint = &new.object;
        let provider = &endpoint.service_identity.reference.tenant;
        let old = before.endpoints.get(at);
        let old = old.filter(|old| old.meta.uid == new.meta.uid);
        let decides = is_provider(principal, provider);
        // A new connection of an endpoint is judged like a new endpoint.
        let reconnected = old.is_some_and(|old| {
            let (old, new) = (&old.object.connection, &endpoint.connection);
            old.state == ConnectionState::Disconnected && old.link_id != new.link_id
        });
        let Some(old) = old.filter(|_| !reconnected) else {
            prop_assert!(is_consumer(principal, &at.tenant), "{at} was created");
            if let Some(old) = old {
                prop_assert_eq!(&old.object.addresses, &endpoint.addresses);
                prop_assert_eq!(&old.object.network, &endpoint.network);
            }
            let service = after.services.get(&endpoint.service_identity.reference);
            let automatic =
                service.is_some_and(|s| s.object.spec.auto_approval.contains(&at.tenant));
            let expected = match endpoint.connection.state {
                ConnectionState::Pending => true,
                ConnectionState::Approved => automatic || decides,
                _ => decides,
            };
            prop_assert!(expected, "{at} was created {}", endpoint.connection.state);
            continue;
        };
        if old.object.connection != endpoint.connection {
            prop_assert!(decides, "the connection of {at} was decided");
            let (old_connection, now) = (&old.object.connection, &endpoint.connection);
            prop_assert_eq!(
                (old_connection.link_id, old_connection.slot),
                (now.link_id, now.slot)
            );
        }
        if old.meta.labels != new.meta.labels {
            prop_assert!(is_consumer(principal, &at.tenant), "{at} was labelled");
        }
        prop_assert_eq!(&old.object.service_identity, &endpoint.service_identity);
        prop_assert_eq!(&old.object.addresses, &endpoint.addresses);
    }
    for at in before.endpoints.keys() {
        if !after.endpoints.contains_key(at) {
            prop_assert!(is_consumer(principal, &at.tenant), "{at} was deleted");
        }
    }
    let services = before.services.keys().chain(after.services.keys());
    for at in services {
        let (then, now) = (before.services.get(at), after.services.get(at));
        let same = match (then, now) {
            (Some(then), Some(now)) => {
                (&then.object, &then.meta.labels) == (&now.object, &now.meta.labels)
            }
            _ => false,
        };
        prop_assert!(
            same || is_provider(principal, &at.tenant),
            "{at} was changed"
        );
    }
    if !principal.is_operator() {
        prop_assert_eq!(&before.tenants, &after.tenants);
        prop_assert_eq!(&before.networks, &after.networks);
    }
    Ok(())
}
