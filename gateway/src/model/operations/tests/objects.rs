//! Rules for objects of every kind: dependents, versions, repeated creation.

use serde_json::json;

use super::*;
use crate::model::network::NetworkRequest;

#[test]
fn objects_in_use_can_not_be_deleted() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    world
        .decide("provider/shop", "consumer/ep", Decision::Approve)
        .unwrap();
    let shop = reference("provider/shop");
    refused(
        world.run(|state, _, _| delete_tenant(state, &name("consumer"))),
        ProblemCode::HasDependents,
        None,
        "1 networks, 1 endpoints",
    );
    refused(
        world.run(|state, _, _| delete_network(state, &reference("consumer/net"))),
        ProblemCode::HasDependents,
        None,
        "used by endpoint consumer/ep",
    );
    refused(
        world.run(|state, context, _| delete_service(state, context, &shop, false)),
        ProblemCode::HasDependents,
        None,
        "1 approved connections",
    );
    world
        .run(|state, context, _| delete_service(state, context, &shop, true))
        .unwrap();
    assert_eq!(
        world.connection("consumer/ep"),
        ConnectionState::Disconnected
    );
    // A service of the same name is another one.
    world.service("provider/shop", json!({})).unwrap();
    refused(
        world.decide("provider/shop", "consumer/ep", Decision::Approve),
        ProblemCode::NotFound,
        None,
        "has no connection",
    );
}

#[test]
fn an_old_version_is_refused() {
    let mut world = World::furnished();
    let net = reference("consumer/net");
    let version = world.state.networks[&net].meta.version.public_value();
    let request = |version: u64| -> NetworkRequest {
        body(json!({ "version": version, "attachments": [{ "interface": "veth-d" }] })).unwrap()
    };
    refused(
        world.run(|state, context, _| update_network(state, context, &net, request(version ^ 1))),
        ProblemCode::VersionConflict,
        Some("version"),
        "read it again",
    );
    world
        .run(|state, context, _| update_network(state, context, &net, request(version)))
        .unwrap();
    assert_eq!(world.state.network_by_interface("veth-c"), None);
    assert_eq!(world.state.network_by_interface("veth-d"), Some(&net));
    refused(
        world.network("consumer/other", "veth-p"),
        ProblemCode::InUse,
        Some("attachments[0].interface"),
        "attached to another network",
    );
}

#[test]
fn creating_an_identical_object_changes_nothing() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/x", "10.0.0.9", "provider/shop")
        .unwrap();
    let before = world.revision;
    let state = format!("{:?}", world.state);
    world.tenant("consumer").unwrap();
    world.network("consumer/net", "veth-c").unwrap();
    world.service("provider/shop", json!({})).unwrap();
    world
        .endpoint("consumer/x", "10.0.0.9", "provider/shop")
        .unwrap();
    assert_eq!(format!("{:?}", world.state), state);
    assert!(world.revision > before);
    for refusal in [
        world.network("consumer/net", "other"),
        world.service("provider/shop", json!({ "max_connections_per_tenant": 1 })),
        world.endpoint("consumer/x", "10.0.0.10", "provider/shop"),
    ] {
        assert_eq!(refusal.unwrap_err().code, ProblemCode::AlreadyExists);
    }
}
