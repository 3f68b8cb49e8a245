//! Endpoints of manifests: disconnected ones ask again, and changed ones are replaced where that is asked for.

use serde_json::{Value, json};

use super::*;
use crate::model::{Access, Principal, Role, manifest::Manifest};

fn consumer() -> Principal {
    Principal {
        access: Access::Tenants([(name("consumer"), Role::Consumer)].into()),
        ..Principal::operator("token 1", "192.0.2.1")
    }
}

/// Applies a manifest with one endpoint of these fields, and returns the changed fields.
fn apply_endpoint(
    world: &mut World,
    principal: &Principal,
    fields: Value,
    replace: bool,
) -> Result<Vec<String>, Problem> {
    let mut entry = json!({
        "tenant": "consumer", "name": "ep", "network": "net", "addresses": ["10.0.0.100"],
        "service": "provider/shop",
    });
    let map = entry.as_object_mut().unwrap();
    map.extend(fields.as_object().unwrap().clone());
    apply_manifest(world, principal, json!({ "endpoints": [entry] }), replace)
}

/// Applies a manifest, and returns the changed fields.
fn apply_manifest(
    world: &mut World,
    principal: &Principal,
    manifest: Value,
    replace: bool,
) -> Result<Vec<String>, Problem> {
    let manifest: Manifest = body(manifest)?;
    let options = ApplyOptions {
        replace,
        ..ApplyOptions::default()
    };
    let mut fields = Vec::new();
    world.run(|state, context, policy| {
        let (changes, found) = apply(state, context, policy, principal, &manifest, options)?;
        let found = found.iter().flat_map(|diff| &diff.fields);
        fields = found.map(|field| field.field.clone()).collect();
        Ok(changes)
    })?;
    Ok(fields)
}

#[test]
fn a_disconnected_endpoint_is_a_difference() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    let consumer = consumer();
    let none: [String; 0] = [];
    let fields = apply_endpoint(&mut world, &consumer, json!({}), false).unwrap();
    assert_eq!(fields, none);
    world
        .decide("provider/shop", "consumer/ep", Decision::Remove)
        .unwrap();
    let uid = world.state.endpoints[&reference("consumer/ep")].meta.uid;
    let labelled = json!({ "labels": { "a": "b" } });
    let fields = apply_endpoint(&mut world, &consumer, labelled, false).unwrap();
    assert!(
        fields.contains(&"connection.state".to_owned()) && fields.contains(&"labels.a".to_owned()),
        "{fields:?}"
    );
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Pending);
    assert_eq!(
        world.state.endpoints[&reference("consumer/ep")].meta.uid,
        uid
    );
    // The service is gone: the manifest can't be applied.
    world.delete_service("provider/shop").unwrap();
    let problem = apply_endpoint(&mut world, &consumer, json!({}), false).unwrap_err();
    assert_eq!(problem.code, ProblemCode::NotFound);
}

#[test]
fn a_manifest_does_not_undo_the_decision_of_a_provider_by_accident() {
    let mut world = World::furnished();
    let operator = Principal::operator("test", "socket");
    let manifest = |state: &str| {
        json!({
            "endpoints": [{
                "tenant": "consumer", "name": "ep", "network": "net", "addresses": ["10.0.0.100"],
                "service": "provider/shop",
            }],
            "connections": [{ "endpoint": "consumer/ep", "state": state }],
        })
    };
    apply_manifest(&mut world, &operator, manifest("Approved"), false).unwrap();
    world
        .decide("provider/shop", "consumer/ep", Decision::Remove)
        .unwrap();
    for _ in 0..2 {
        let problem =
            apply_manifest(&mut world, &operator, manifest("Approved"), false).unwrap_err();
        assert_eq!(problem.code, ProblemCode::WrongState);
        assert!(problem.detail.contains("--replace"), "{problem}");
        // A manifest that agrees with the provider changes nothing, however often it is applied.
        let fields =
            apply_manifest(&mut world, &operator, manifest("Disconnected"), false).unwrap();
        assert!(fields.is_empty(), "{fields:?}");
    }
    apply_manifest(&mut world, &operator, manifest("Approved"), true).unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Approved);
}

#[test]
fn a_changed_endpoint_is_replaced_only_if_that_is_asked_for() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    world
        .decide("provider/shop", "consumer/ep", Decision::Approve)
        .unwrap();
    let consumer = consumer();
    let moved = json!({ "addresses": ["10.0.0.101"] });
    let problem = apply_endpoint(&mut world, &consumer, moved.clone(), false).unwrap_err();
    assert!(problem.detail.contains("--replace"), "{problem}");
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Approved);
    // Labels alone replace nothing.
    let labelled = json!({ "labels": { "a": "b" } });
    apply_endpoint(&mut world, &consumer, labelled, true).unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Approved);
    apply_endpoint(&mut world, &consumer, moved.clone(), true).unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Pending);
    let net = reference("consumer/net");
    let at = |world: &World, address: &str| {
        let found = world
            .state
            .endpoint_by_address(&net, address.parse().unwrap());
        found.is_some()
    };
    assert!(at(&world, "10.0.0.101") && !at(&world, "10.0.0.100"));
    // An approval can't be kept by the manifest of a consumer.
    world
        .decide("provider/shop", "consumer/ep", Decision::Approve)
        .unwrap();
    let viewer = Principal {
        access: Access::Tenants([(name("consumer"), Role::Viewer)].into()),
        ..consumer
    };
    let problem = apply_endpoint(&mut world, &viewer, json!({}), true).unwrap_err();
    assert_eq!(problem.code, ProblemCode::Forbidden);
}
