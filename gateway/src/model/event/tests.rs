//! Visibility of events, and their fields.

use super::*;
use crate::model::{Change, Decision, Object, RandomIdentifiers, Role, operations::tests::World};

fn principal(access: Access) -> Principal {
    Principal {
        identity: "token 1".to_owned(),
        name: "token shop/ci".to_owned(),
        from: "192.0.2.1".to_owned(),
        access,
    }
}

fn tenant_admin(tenant: &str) -> Principal {
    principal(Access::Tenants(
        [(tenant.parse().unwrap(), Role::Admin)].into(),
    ))
}

/// Returns the event of a provider's approval.
fn decided() -> StoredEvent {
    let mut world = World::furnished();
    world
        .endpoint("consumer/db", "10.0.0.100", "provider/shop")
        .unwrap();
    let before = world.state.clone();
    world
        .decide("provider/shop", "consumer/db", Decision::Approve)
        .unwrap();
    let record = world.state.endpoints[&"consumer/db".parse().unwrap()].clone();
    let change = Change::Put(Object::Endpoint("consumer".parse().unwrap(), record));
    let mut events = events_for_changes(
        &before,
        &[change],
        &tenant_admin("provider"),
        Timestamp::UNIX_EPOCH,
        7,
        &mut RandomIdentifiers,
    );
    events.remove(0)
}

#[test]
fn a_decision_is_visible_to_both_tenants_only() {
    let recorded = decided();
    assert_eq!(recorded.event.action, Action::Approved);
    assert!(recorded.decided);
    assert_eq!(recorded.event.id.ticks(), 7);
    assert_eq!(recorded.event.message, "said so");
    let provider = recorded.redacted_for(&tenant_admin("provider")).unwrap();
    assert_eq!(provider.actor, "token shop/ci");
    assert!(provider.service.is_some());
    let consumer = recorded.redacted_for(&tenant_admin("consumer")).unwrap();
    assert_eq!((&*consumer.actor, &*consumer.from), ("the other side", ""));
    assert_eq!(consumer.service, None);
    assert_eq!(recorded.redacted_for(&tenant_admin("b")), None);
    let operator = recorded.redacted_for(&principal(Access::Operator)).unwrap();
    assert_eq!(operator, recorded.event);
}

#[test]
fn an_update_event_names_the_changed_fields() {
    let mut world = World::furnished();
    let service = |world: &World| {
        let record = world.state.services[&"provider/shop".parse().unwrap()].clone();
        Object::Service("provider".parse().unwrap(), record)
    };
    let before = world.state.clone();
    let Object::Service(tenant, mut record) = service(&world) else {
        panic!("a service");
    };
    record.object.spec.max_connections_per_tenant = Some(3);
    record.meta.version = crate::model::Version::from_revision(99);
    let change = Change::Put(Object::Service(tenant, record));
    let events = events_for_changes(
        &before,
        &[change],
        &tenant_admin("provider"),
        Timestamp::UNIX_EPOCH,
        1,
        &mut RandomIdentifiers,
    );
    assert_eq!(events[0].event.action, Action::Updated);
    assert_eq!(events[0].event.fields, ["max_connections_per_tenant"]);
    world.state.apply(Vec::new(), 1);
}
