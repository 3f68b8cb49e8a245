//! Invalid services.

use serde_json::{Value, json};

use super::*;

#[test]
fn invalid_services_are_refused() {
    let mut world = World::furnished();
    let resource = |ports: Value, backends: Value| json!({ "resources": [{ "ports": ports, "backends": backends }], "nat_addresses": ["10.1.1.0/28"] });
    let https = || json!([{ "port": 443 }]);
    for (changes, code, field, words) in [
        (
            json!({}),
            ProblemCode::InUse,
            "nat_addresses[0]",
            "source NAT addresses of service provider/shop",
        ),
        (
            json!({ "nat_addresses": [] }),
            ProblemCode::Invalid,
            "nat_addresses",
            "at least one",
        ),
        (
            json!({ "nat_addresses": ["10.1.0.10"] }),
            ProblemCode::Invalid,
            "nat_addresses[0]",
            "backend 10.1.0.10",
        ),
        (
            json!({ "nat_addresses": ["10.2.0.0/16"] }),
            ProblemCode::Invalid,
            "nat_addresses",
            "more than 1024",
        ),
        (
            json!({ "nat_addresses": ["10.1.1.0/28", "10.1.1.3"] }),
            ProblemCode::Invalid,
            "nat_addresses[1]",
            "overlaps",
        ),
        (
            json!({ "network": "nowhere" }),
            ProblemCode::Invalid,
            "network",
            "there is no network provider/nowhere",
        ),
        (
            json!({ "resources": [] }),
            ProblemCode::Invalid,
            "resources",
            "1 to 256",
        ),
        (
            resource(json!([]), json!([])),
            ProblemCode::Invalid,
            "resources[0].ports",
            "1 to 1024",
        ),
        (
            resource(json!([{ "port": 443 }, { "port": 443 }]), json!([])),
            ProblemCode::Invalid,
            "resources[0].ports[1]",
            "offered twice",
        ),
        (
            resource(json!([{ "port": "*", "backend_port": 1 }]), json!([])),
            ProblemCode::Invalid,
            "resources[0].ports[0].backend_port",
            "kept as it is",
        ),
        (
            resource(https(), json!([{ "address": "10.1.0.70" }])),
            ProblemCode::InUse,
            "resources[0].backends[0].address",
            "source NAT address of service provider/shop",
        ),
        (
            resource(https(), json!([{ "address": "10.1.0.9", "weight": 1001 }])),
            ProblemCode::Invalid,
            "resources[0].backends[0].weight",
            "at most 1000",
        ),
        (
            resource(
                https(),
                json!([{ "address": "10.1.0.9" }, { "address": "10.1.0.9" }]),
            ),
            ProblemCode::Invalid,
            "resources[0].backends[1].address",
            "twice",
        ),
        (
            json!({ "timeouts": { "udp": 1 } }),
            ProblemCode::Invalid,
            "timeouts.udp",
            "out of range",
        ),
    ] {
        let mut changes = changes;
        if changes.get("nat_addresses").is_none() && code == ProblemCode::Invalid {
            changes["nat_addresses"] = json!(["10.1.1.0/28"]);
        }
        refused(
            world.service("provider/new", changes),
            code,
            Some(field),
            words,
        );
    }
    for malformed in [
        json!({ "nonsense": 1 }),
        json!({ "visibility": ["*", "a"] }),
        json!({ "resources": [{ "ports": [{ "port": 0 }] }] }),
        json!({ "nat_addresses": ["10.1.1.1/28"] }),
    ] {
        assert_eq!(
            world.service("provider/new", malformed).unwrap_err().code,
            ProblemCode::Malformed
        );
    }
    assert_eq!(
        world.state.services.len(),
        1,
        "a refusal left something behind"
    );
}
