//! Visibility of events, and their fields.

use super::*;
use crate::model::{
    Change, Decision, Object, RandomIdentifiers, Role, event_retention::EventClass,
    operations::tests::World,
};

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

#[test]
fn events_about_health_are_visible_to_the_provider_only() {
    let change = |backend: Option<std::net::IpAddr>, available| AvailabilityChange {
        service: "provider/shop".parse().unwrap(),
        resource: "default".parse().unwrap(),
        backend,
        available,
        reason: "has no healthy backend".to_owned(),
    };
    let backend = Some([10, 1, 0, 10].into());
    let changes = [
        change(backend, false),
        change(None, false),
        change(backend, true),
        change(None, true),
    ];
    let now = Timestamp::UNIX_EPOCH;
    let events = events_for_availability(&changes, now, 9, &mut RandomIdentifiers);
    let actions: Vec<Action> = events.iter().map(|event| event.event.action).collect();
    assert_eq!(
        actions,
        [
            Action::Unhealthy,
            Action::Unavailable,
            Action::Healthy,
            Action::Available
        ]
    );
    assert!(events.is_sorted_by_key(|event| event.event.id));
    assert_eq!(
        events[1].event.message,
        "resource default has no healthy backend"
    );
    for recorded in &events {
        let seen = recorded.redacted_for(&tenant_admin("provider")).unwrap();
        assert_eq!(seen, recorded.event);
        assert_eq!(
            (&*seen.actor, &*seen.object),
            ("health check", "provider/shop")
        );
        assert_eq!(recorded.redacted_for(&tenant_admin("consumer")), None);
        let operator = recorded.redacted_for(&principal(Access::Operator)).unwrap();
        assert_eq!(operator, recorded.event);
        // A flapping backend evicts no record of what users did.
        let class = EventClass::from_event(recorded);
        assert_eq!(class, EventClass::Health);
    }
}

#[test]
fn a_new_connection_of_an_endpoint_is_a_request() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/db", "10.0.0.100", "provider/shop")
        .unwrap();
    world
        .decide("provider/shop", "consumer/db", Decision::Remove)
        .unwrap();
    let message = serde_json::json!({ "request_message": "again" });
    world.reconnect("consumer/db", message).unwrap();
    let (before, changes) = &world.last;
    let events = events_for_changes(
        before,
        changes,
        &tenant_admin("consumer"),
        Timestamp::UNIX_EPOCH,
        7,
        &mut RandomIdentifiers,
    );
    let [recorded] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(recorded.event.action, Action::Requested);
    assert_eq!(recorded.event.message, "again");
    assert!(!recorded.decided);
    assert_eq!(EventClass::from_event(recorded), EventClass::Requests);
}
