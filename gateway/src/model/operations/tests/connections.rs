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

#[test]
fn the_operator_learns_why_a_tenant_can_not_use_a_service() {
    let mut world = World::furnished();
    let hidden = json!({ "visibility": [], "nat_addresses": ["10.1.1.0/28"] });
    world.service("provider/hidden", hidden).unwrap();
    let denied = json!({ "denied": ["consumer"], "nat_addresses": ["10.1.2.0/28"] });
    world.service("provider/denied", denied).unwrap();
    world.is_operator = true;
    for (service, code, words) in [
        (
            "provider/hidden",
            ProblemCode::Invalid,
            "not visible to tenant consumer: add the tenant",
        ),
        (
            "provider/denied",
            ProblemCode::Invalid,
            "denies tenant consumer: remove the tenant",
        ),
        (
            "provider/never",
            ProblemCode::NotFound,
            "there is no service provider/never",
        ),
    ] {
        refused(
            world.endpoint("consumer/x", "10.0.0.103", service),
            code,
            Some("service"),
            words,
        );
    }
}

#[test]
fn a_disconnected_endpoint_asks_again_with_its_name_and_addresses() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    for decision in [None, Some(Decision::Approve), Some(Decision::Reject)] {
        if let Some(decision) = decision {
            world
                .decide("provider/shop", "consumer/ep", decision)
                .unwrap();
        }
        refused(
            world.reconnect("consumer/ep", json!({})),
            ProblemCode::WrongState,
            None,
            "only one that is Disconnected",
        );
    }
    world.delete_service("provider/shop").unwrap();
    let old = world.state.endpoints[&reference("consumer/ep")].clone();
    refused(
        world.reconnect("consumer/ep", json!({})),
        ProblemCode::NotFound,
        Some("service"),
        "there is no service provider/shop",
    );
    world.service("provider/shop", json!({})).unwrap();
    refused(
        world.reconnect("consumer/ep", json!({ "resource": "other" })),
        ProblemCode::Invalid,
        Some("resource"),
        "offers no resource other",
    );
    refused(
        world.endpoint("consumer/ep", "10.0.0.100", "provider/shop"),
        ProblemCode::AlreadyExists,
        Some("name"),
        "plgw endpoint reconnect consumer/ep",
    );
    world
        .reconnect("consumer/ep", json!({ "request_message": "again" }))
        .unwrap();
    let new = world.state.endpoints[&reference("consumer/ep")].clone();
    assert_eq!(new.object.connection.state, ConnectionState::Pending);
    assert_eq!(new.object.connection.slot, old.object.connection.slot);
    assert_ne!(new.object.connection.link_id, old.object.connection.link_id);
    assert_eq!(new.object.addresses, old.object.addresses);
    assert_eq!(new.meta.uid, old.meta.uid);
    assert_eq!(new.object.request_message, "again");
    world
        .decide("provider/shop", "consumer/ep", Decision::Approve)
        .unwrap();
    // The service may be another one, which the consumer names.
    world
        .decide("provider/shop", "consumer/ep", Decision::Remove)
        .unwrap();
    let other = json!({ "auto_approval": ["consumer"], "nat_addresses": ["10.1.3.0/28"] });
    world.service("provider/other", other).unwrap();
    let request = json!({ "service": "provider/other" });
    world.reconnect("consumer/ep", request).unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Approved);
    let other = reference("provider/other");
    assert_eq!(world.state.endpoints_of_service(&other).count(), 1);
    let shop = reference("provider/shop");
    assert_eq!(world.state.endpoints_of_service(&shop).count(), 0);
}

#[test]
fn asking_again_respects_visibility_and_limits() {
    let mut world = World::furnished();
    for (endpoint, address) in [("consumer/a", "10.0.0.101"), ("consumer/b", "10.0.0.102")] {
        world.endpoint(endpoint, address, "provider/shop").unwrap();
    }
    world
        .decide("provider/shop", "consumer/a", Decision::Remove)
        .unwrap();
    let one = json!({ "max_connections_per_tenant": 1 });
    world.replace_service("provider/shop", one).unwrap();
    refused(
        world.reconnect("consumer/a", json!({})),
        ProblemCode::LimitReached,
        Some("service"),
        "allows 1 each",
    );
    world
        .replace_service("provider/shop", json!({ "visibility": [] }))
        .unwrap();
    refused(
        world.reconnect("consumer/a", json!({})),
        ProblemCode::NotFound,
        Some("service"),
        "there is no service",
    );
}
