//! States of connections, and the visibility of services.

use serde_json::json;

use super::*;

#[test]
fn connection_lifecycle() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Pending);
    let mut generations = std::collections::HashSet::from([0]);
    for (decision, state) in [
        (Decision::Approve, ConnectionState::Approved),
        (Decision::Reject, ConnectionState::Rejected),
        (Decision::Approve, ConnectionState::Approved),
        (Decision::Remove, ConnectionState::Disconnected),
    ] {
        world
            .decide("provider/shop", "consumer/ep", decision)
            .unwrap();
        assert_eq!(world.connection("consumer/ep"), state);
        let generation = world.state.endpoints[&reference("consumer/ep")]
            .object
            .connection
            .generation;
        let approved = state == ConnectionState::Approved;
        assert_eq!(generation != 0, approved);
        assert!(
            !approved || generations.insert(generation),
            "a generation was used twice"
        );
    }
    refused(
        world.decide("provider/shop", "consumer/ep", Decision::Approve),
        ProblemCode::WrongState,
        None,
        "Disconnected is final",
    );
    world
        .run(|state, _, _| delete_endpoint(state, &reference("consumer/ep")))
        .unwrap();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Pending);
}

#[test]
fn auto_approval_and_denial() {
    let mut world = World::furnished();
    let nat = |range: &str| json!({ "auto_approval": ["consumer"], "nat_addresses": [range] });
    world.service("provider/auto", nat("10.1.1.0/28")).unwrap();
    world
        .endpoint("consumer/a", "10.0.0.101", "provider/auto")
        .unwrap();
    assert_eq!(world.connection("consumer/a"), ConnectionState::Approved);
    let mut denied = nat("10.1.2.0/28");
    denied["denied"] = json!(["consumer"]);
    world.service("provider/denied", denied).unwrap();
    refused(
        world.endpoint("consumer/b", "10.0.0.102", "provider/denied"),
        ProblemCode::NotFound,
        Some("service"),
        "there is no service provider/denied",
    );
}

#[test]
fn an_invisible_service_is_not_found() {
    let mut world = World::furnished();
    let hidden = json!({ "visibility": [], "nat_addresses": ["10.1.1.0/28"] });
    world.service("provider/hidden", hidden).unwrap();
    let alias = world.state.services[&reference("provider/hidden")]
        .object
        .alias
        .clone();
    let say = |world: &mut World, service: &str| {
        let outcome = world.endpoint("consumer/x", "10.0.0.103", service);
        outcome.unwrap_err().detail.replace(service, "IT")
    };
    let never = say(&mut world, "provider/never");
    assert_eq!(say(&mut world, "provider/hidden"), never);
    assert_eq!(say(&mut world, &alias), never);
    let shown = world.state.services[&reference("provider/shop")]
        .object
        .alias
        .clone();
    world.endpoint("consumer/x", "10.0.0.103", &shown).unwrap();
    assert!(
        !shown.contains("provider") && !shown.contains("net."),
        "{shown}"
    );
}
