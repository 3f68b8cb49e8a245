//! Tests of the invariants: states that operations create satisfy them, tampered states violate them.

use gateway_common::maps::MAX_CONNECTIONS;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::model::{
    Decision, Role, State,
    operations::{
        create_identity, create_token, create_webhook, delete_tenant, delete_token, tests::World,
    },
};

fn objects(world: &World) -> Vec<Object> {
    world.state.objects().collect()
}

const TENANTS: [&str; 3] = ["a", "b", "c"];

/// Carries out one random operation, which may be refused.
fn step(world: &mut World, (what, one, two, number): (u8, usize, usize, u8)) {
    let (owner, other) = (TENANTS[one], TENANTS[two]);
    let address = format!("10.0.0.{}", number % 12);
    let endpoint = format!("{owner}/e{}", number % 5);
    let service = format!("{other}/s{}", number % 2);
    let own = format!("{owner}/s{}", number % 2);
    let spec = |number: u8| {
        json!({
            "network": "net",
            "resources": [
                { "name": "default", "ports": [{ "port": 80 }],
                  "backends": [{ "address": format!("10.0.0.{}", number % 9) }] },
                { "name": format!("r{}", number % 3), "ports": [{ "port": 81 }] },
            ],
            "nat_addresses": [format!("10.0.0.{}-10.0.0.{}", number % 14, number % 14 + 1)],
            "auto_approval": if number.is_multiple_of(3) { json!(["*"]) } else { json!([]) },
        })
    };
    let _refused = match what {
        0 => world.tenant(owner),
        1 => world.network(&format!("{owner}/net"), &format!("if{}", number % 4)),
        2 | 3 => world.service(&own, spec(number)),
        4 => world.replace_service(&own, spec(number)),
        5..=7 => world.endpoint(&endpoint, &address, &service),
        8 => world.delete_endpoint(&endpoint),
        9 => world.delete_service(&own),
        10..=13 => {
            let decision = Decision::ALL[usize::from(number % 3)];
            world.decide_if_there(&service, &endpoint, decision)
        }
        14 => world.run(|state, context, _| {
            let request = json!({ "name": format!("t{}", number % 3), "role": "viewer" });
            let request = serde_json::from_value(request).unwrap();
            let text = format!("gwt_{number}-{owner}-{}", context.identifiers.bits());
            create_token(state, context, &owner.parse().unwrap(), request, &text)
        }),
        15 => world.run(|state, _, _| {
            delete_token(state, &format!("{owner}/t{}", number % 3).parse().unwrap())
        }),
        16 => world.run(|state, context, policy| {
            let request = json!({ "name": "i", "issuer": "certificate", "claim": "sha256", "value": "x",
                "role": Role::Admin });
            let request = serde_json::from_value(request).unwrap();
            create_identity(state, context, policy, &owner.parse().unwrap(), request)
        }),
        17 => world.run(|state, context, _| {
            let request = json!({ "name": "w", "url": "https://example.com/x" });
            let request = serde_json::from_value(request).unwrap();
            let secret = crate::model::webhook::new_secret(context.identifiers.secret());
            create_webhook(state, context, &owner.parse().unwrap(), request, secret)
        }),
        19 | 20 => world.reconnect(&endpoint, json!({ "service": service })),
        _ => world.run(|state, _, _| delete_tenant(state, &owner.parse().unwrap())),
    };
}

proptest! {
    #[test]
    fn invariants_hold_after_operations_and_after_decoding(
        steps in proptest::collection::vec((0u8..21, 0usize..3, 0usize..3, any::<u8>()), 0..120),
    ) {
        let mut world = World::default();
        for tenant in TENANTS {
            world.tenant(tenant).unwrap();
            world.network(&format!("{tenant}/net"), &format!("eth-{tenant}")).unwrap();
        }
        for each in steps {
            step(&mut world, each);
            let objects = objects(&world);
            prop_assert_eq!(check(&objects), Ok(()));
        }
        let objects = objects(&world);
        let read = objects.iter().map(|object| {
            Object::decode(&object.key(), &object.encode().unwrap(), object.version().revision()).unwrap()
        });
        let read: Vec<Object> = read.collect();
        prop_assert_eq!(check(&read), Ok(()));
        let state = State::new(read, crate::model::VersionKey::default());
        prop_assert_eq!(state.free_slot(), world.state.free_slot());
    }
}

/// Returns a world of two tenants with services, approved, pending and disconnected endpoints, a token and a webhook.
fn world() -> World {
    let mut world = World::furnished();
    for (endpoint, address) in [
        ("e", "10.0.0.101"),
        ("f", "10.0.0.102"),
        ("g", "10.0.0.103"),
    ] {
        let endpoint = format!("consumer/{endpoint}");
        world.endpoint(&endpoint, address, "provider/shop").unwrap();
    }
    for (endpoint, decision) in [("e", Decision::Approve), ("g", Decision::Remove)] {
        let endpoint = format!("consumer/{endpoint}");
        world.decide("provider/shop", &endpoint, decision).unwrap();
    }
    world
        .service(
            "provider/other",
            json!({ "nat_addresses": ["10.1.9.0/28"] }),
        )
        .unwrap();
    world
        .run(|state, context, _| {
            let request = json!({ "name": "t", "role": "viewer" });
            let request = serde_json::from_value(request).unwrap();
            create_token(
                state,
                context,
                &"consumer".parse().unwrap(),
                request,
                "gwt_x",
            )
        })
        .unwrap();
    world
        .run(|state, context, _| {
            let request = json!({ "name": "w", "url": "https://example.com/x" });
            let request = serde_json::from_value(request).unwrap();
            let secret = crate::model::webhook::new_secret([7; 32]);
            create_webhook(
                state,
                context,
                &"consumer".parse().unwrap(),
                request,
                secret,
            )
        })
        .unwrap();
    world
}

/// Sets the value at a JSON pointer.
fn set(object: &mut Value, pointer: &str, value: Value) {
    *object.pointer_mut(pointer).unwrap() = value;
}

/// Returns the violation after a field of an object was set to another value.
fn after(key: &str, pointer: &str, value: Value) -> String {
    let mut found = false;
    let read = objects(&world()).into_iter().map(|object| {
        let mut json = object.to_value().unwrap();
        if object.key() == key {
            found = true;
            set(&mut json, pointer, value.clone());
        }
        Object::decode(&object.key(), &json.to_string(), 1).unwrap()
    });
    let read: Vec<Object> = read.collect();
    assert!(found, "{key}");
    let violation = check(&read).expect_err(&format!("{key} {pointer} {value}"));
    violation.to_string()
}

#[test]
fn field_values_that_no_operation_writes_are_violations() {
    let world = world();
    assert_eq!(check(&objects(&world)), Ok(()));
    let endpoint = |name: &str| {
        let reference = format!("consumer/{name}").parse().unwrap();
        world.state.endpoints[&reference].object.clone()
    };
    let shop = &world.state.services[&"provider/shop".parse().unwrap()];
    let net = &world.state.networks[&"provider/net".parse().unwrap()];
    let (e, s) = ("endpoints/consumer/e", "services/provider/shop");
    let (f, n) = ("endpoints/consumer/f", "networks/consumer/net");
    let nat = &shop.object.spec.nat_addresses[0];
    let backend = &shop.object.spec.resources[0].backends[0];
    for (key, pointer, value, says) in [
        (
            e,
            "/connection/slot",
            json!(u32::MAX),
            "its slot is 4294967295",
        ),
        (e, "/connection/slot", json!(MAX_CONNECTIONS), "its slot is"),
        (
            e,
            "/connection/slot",
            json!(endpoint("f").connection.slot),
            "its slot",
        ),
        (e, "/connection/link_id", json!(0), "is 0"),
        (
            e,
            "/connection/link_id",
            json!(endpoint("f").connection.link_id),
            "its number",
        ),
        (
            e,
            "/connection/link_id",
            json!(net.object.number),
            "its number",
        ),
        (
            e,
            "/connection/generation",
            json!(0),
            "Approved with generation 0",
        ),
        (
            f,
            "/connection/generation",
            json!(7),
            "Pending with generation 7",
        ),
        (
            f,
            "/connection/state",
            json!("Approved"),
            "Approved with generation 0",
        ),
        (e, "/uid", json!(endpoint_uid(&world, "f")), "its uid"),
        (e, "/addresses", json!([]), "one address of each family"),
        (
            e,
            "/addresses",
            json!(["10.0.0.101", "10.0.0.99"]),
            "one address of each family",
        ),
        (e, "/addresses", json!(["10.0.0.102"]), "is an address of"),
        (e, "/addresses", json!(["127.0.0.1"]), "loopback"),
        (
            e,
            "/network",
            json!("nowhere"),
            "there is no network consumer/nowhere",
        ),
        (e, "/resource", json!("nowhere"), "has no resource nowhere"),
        (
            e,
            "/service_identity/uid",
            json!(Uuid::nil()),
            "there is no service",
        ),
        (
            f,
            "/service_identity/reference",
            json!("provider/gone"),
            "there is no service",
        ),
        (
            e,
            "/request_message",
            json!("a\u{1b}[2J"),
            "control characters",
        ),
        (e, "/labels", json!({ "": "x" }), "label"),
        (
            s,
            "/network",
            json!("nowhere"),
            "there is no network provider/nowhere",
        ),
        (s, "/alias", json!("shop.x"), "its alias"),
        (s, "/number", json!(net.object.number), "its number"),
        (s, "/resource_numbers", json!({}), "its resources"),
        (s, "/nat_addresses", json!(["fd00::/64"]), "are more than"),
        (s, "/nat_addresses", json!(["10.1.9.4"]), "is an address of"),
        (
            s,
            "/nat_addresses",
            json!([backend.address]),
            "holds the backend",
        ),
        (s, "/timeouts/udp", json!(0), "out of range"),
        (
            "services/provider/other",
            "/nat_addresses",
            json!([nat]),
            "is an address of",
        ),
        (n, "/number", json!(u32::MAX), "is above"),
        (n, "/number", json!(0), "is 0"),
        (n, "/number", json!(net.object.number), "its number"),
        (
            n,
            "/attachments/0/interface",
            json!("veth-p"),
            "its interface veth-p",
        ),
        (
            n,
            "/attachments/0/interface",
            json!("a/b"),
            "network interface",
        ),
        (n, "/attachments", json!([]), "at least one attachment"),
        ("tokens/consumer/t", "/hash", json!("short"), "its hash"),
        (
            "webhooks/consumer/w",
            "/secret",
            json!("whsec_"),
            "contains no key",
        ),
        (
            "webhooks/consumer/w",
            "/secret",
            json!("none"),
            "contains no key",
        ),
        (
            "webhooks/consumer/w",
            "/url",
            json!("file:///etc/passwd"),
            "http",
        ),
    ] {
        let text = after(key, pointer, value);
        assert!(
            text.contains(says) && text.contains("can't be used"),
            "{pointer}: {text}"
        );
    }
    // The service of a Disconnected connection may be deleted.
    let mut gone = objects(&world);
    gone.retain(|object| !["shop", "e", "f"].contains(&object.meta().name.as_str()));
    assert_eq!(check(&gone), Ok(()));
}

fn endpoint_uid(world: &World, name: &str) -> Uuid {
    let reference = format!("consumer/{name}").parse().unwrap();
    world.state.endpoints[&reference].meta.uid
}

#[test]
fn a_missing_referenced_object_is_a_violation() {
    let all = objects(&world());
    for (gone, says) in [
        ("tenants/consumer", "there is no tenant consumer"),
        ("networks/consumer/net", "there is no network consumer/net"),
        ("networks/provider/net", "there is no network provider/net"),
        (
            "services/provider/shop",
            "there is no service provider/shop",
        ),
    ] {
        let rest: Vec<Object> = all.iter().filter(|o| o.key() != gone).cloned().collect();
        assert_eq!(rest.len() + 1, all.len(), "{gone}");
        let violation = check(&rest).unwrap_err();
        assert!(violation.detail.contains(says), "{gone}: {violation}");
    }
}

#[test]
fn a_duplicate_unique_value_is_a_violation() {
    for (kind, what) in [
        ("services/provider/shop", "alias"),
        ("tokens/consumer/t", "hash"),
    ] {
        let mut all = objects(&world());
        let object = all.iter().find(|object| object.key() == kind).unwrap();
        let mut twin = object.clone();
        twin.meta_mut().uid = Uuid::from_u128(99);
        if let Object::Service(_, record) = &mut twin {
            // Make all values but the alias unique.
            record.object.number = 1 << 30;
            for number in record.object.resource_numbers.values_mut() {
                *number = (1 << 30) + 1;
            }
        }
        all.push(twin);
        let violation = check(&all).unwrap_err();
        assert!(violation.detail.contains(what), "{violation}");
    }
}
