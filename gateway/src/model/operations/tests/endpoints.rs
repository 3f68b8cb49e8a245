//! Invalid endpoints, quotas and slots.

use serde_json::{Value, json};

use super::*;
use crate::model::{Change, Object, tenant::TenantRequest};

#[test]
fn invalid_endpoints_are_refused() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    let with = |changes: Value| {
        let mut value = json!({ "addresses": ["10.0.0.101"], "service": "provider/shop" });
        value
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        value
    };
    for (changes, code, field, words) in [
        (
            json!({ "addresses": ["10.0.0.100"] }),
            ProblemCode::InUse,
            "addresses[0]",
            "endpoint consumer/ep",
        ),
        (
            json!({ "addresses": [] }),
            ProblemCode::Invalid,
            "addresses",
            "needs an address",
        ),
        (
            json!({ "addresses": ["127.0.0.1"] }),
            ProblemCode::Invalid,
            "addresses[0]",
            "loopback",
        ),
        (
            json!({ "addresses": ["224.1.1.1"] }),
            ProblemCode::Invalid,
            "addresses[0]",
            "multicast",
        ),
        (
            json!({ "network": "nowhere" }),
            ProblemCode::Invalid,
            "network",
            "create it first",
        ),
        (
            json!({ "resource": "other" }),
            ProblemCode::Invalid,
            "resource",
            "offers no resource other",
        ),
        (
            json!({ "service": "a/b/c" }),
            ProblemCode::Invalid,
            "service",
            "TENANT/NAME",
        ),
        (
            json!({ "request_message": "a\nb" }),
            ProblemCode::Invalid,
            "request_message",
            "control",
        ),
    ] {
        refused(
            world.endpoint_with("consumer/new", with(changes)),
            code,
            Some(field),
            words,
        );
    }
    refused(
        world.endpoint("consumer/ep", "10.0.0.101", "provider/shop"),
        ProblemCode::AlreadyExists,
        Some("name"),
        "endpoint consumer/ep exists already",
    );
    refused(
        world.endpoint("nobody/ep", "10.0.0.101", "provider/shop"),
        ProblemCode::NotFound,
        None,
        "there is no tenant nobody",
    );
}

#[test]
fn an_endpoint_beyond_the_quota_is_refused() {
    let mut world = World::furnished();
    let request: TenantRequest = body(json!({ "quotas": { "endpoints": 1 } })).unwrap();
    world
        .run(|state, context, _| update_tenant(state, context, &name("consumer"), request))
        .unwrap();
    world
        .endpoint("consumer/a", "10.0.0.101", "provider/shop")
        .unwrap();
    refused(
        world.endpoint("consumer/b", "10.0.0.102", "provider/shop"),
        ProblemCode::LimitReached,
        None,
        "1 endpoints of the 1",
    );
}

#[test]
fn slots_are_reused_and_records_round_trip_through_the_store_encoding() {
    let mut world = World::furnished();
    for (endpoint, address) in [
        ("a", "10.0.0.101"),
        ("b", "10.0.0.102"),
        ("c", "10.0.0.103"),
    ] {
        world
            .endpoint(&format!("consumer/{endpoint}"), address, "provider/shop")
            .unwrap();
    }
    assert_eq!(world.state.free_slot(), 3);
    world
        .run(|state, _, _| delete_endpoint(state, &reference("consumer/b")))
        .unwrap();
    assert_eq!(world.state.free_slot(), 1);
    let record = world.state.endpoints[&reference("consumer/a")].clone();
    let version = record.meta.version;
    let object = Object::Endpoint(name("consumer"), record);
    let text = object.encode().unwrap();
    let decoded = Object::decode(&object.key(), &text, version.revision());
    let mut decoded = decoded.unwrap();
    decoded.meta_mut().version = version;
    assert_eq!(decoded, object);
}

/// Changes of one commit are sorted by name, so an object may get what another one gives up before that is removed.
#[test]
fn slot_and_address_that_pass_to_another_endpoint_stay_taken() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut world = World::furnished();
        let (from, to) = (format!("consumer/{from}"), format!("consumer/{to}"));
        world
            .endpoint(&from, "10.0.0.101", "provider/shop")
            .unwrap();
        let from: Reference = from.parse().unwrap();
        let to: Reference = to.parse().unwrap();
        let old = world.state.endpoints[&from].clone();
        let mut new = old.clone();
        new.meta.name = to.name.clone();
        let mut changes = vec![
            Change::Delete(Object::Endpoint(from.tenant.clone(), old)),
            Change::Put(Object::Endpoint(to.tenant.clone(), new.clone())),
        ];
        for _ in 0..2 {
            let mut state = world.state.clone();
            state.apply(changes.clone(), 99);
            let network = "consumer/net".parse().unwrap();
            let owner = state.endpoint_by_address(&network, "10.0.0.101".parse().unwrap());
            assert_eq!(owner, Some(&to));
            assert_eq!(
                state.endpoint_by_link_id(new.object.connection.link_id),
                Some(&to)
            );
            assert_ne!(state.free_slot(), new.object.connection.slot);
            changes.reverse();
        }
    }
}
