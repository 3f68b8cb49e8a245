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

#[test]
fn a_health_check_without_a_port_to_probe_is_refused() {
    let mut world = World::furnished();
    let spec = |port: &str, check: &str| {
        json!({
            "resources": [{ "ports": [{ "protocol": port, "port": 53 }] }],
            "nat_addresses": ["10.1.1.0/28"],
            "health_check": { "check": check },
        })
    };
    for (port, check) in [("udp", "tcp"), ("udp", "http"), ("tcp", "udp")] {
        refused(
            world.service("provider/dns", spec(port, check)),
            ProblemCode::Invalid,
            Some("health_check.port"),
            "--health-port",
        );
    }
    let every = json!({
        "resources": [{ "ports": [{ "port": "*" }] }],
        "nat_addresses": ["10.1.1.0/28"],
        "health_check": { "check": "tcp" },
    });
    refused(
        world.service("provider/dns", every.clone()),
        ProblemCode::Invalid,
        Some("health_check.port"),
        "offers no single TCP port",
    );
    world.service("provider/dns", spec("udp", "udp")).unwrap();
    refused(
        world.replace_service("provider/dns", every),
        ProblemCode::Invalid,
        Some("health_check.port"),
        "offers no single TCP port",
    );
}

#[test]
fn a_stored_health_check_without_effect_stays_and_can_be_mended() {
    let mut world = World::furnished();
    let spec = |check: &str, backend: &str| {
        json!({
            "resources": [{
                "ports": [{ "protocol": "udp", "port": 53 }],
                "backends": [{ "address": backend }],
            }],
            "nat_addresses": ["10.1.1.0/28"],
            "health_check": { "check": check },
        })
    };
    let at = reference("provider/dns");
    world
        .service("provider/dns", spec("none", "10.1.0.20"))
        .unwrap();
    // As an earlier program stored it.
    let mut record = world.state.services[&at].clone();
    record.object.spec.health_check.check = crate::model::service::HealthCheckKind::Tcp;
    let object = crate::model::Object::Service(name("provider"), record);
    world
        .state
        .apply(vec![crate::model::Change::Put(object)], 900);
    let objects: Vec<crate::model::Object> = world.state.objects().collect();
    assert_eq!(crate::model::invariants::check(&objects), Ok(()));
    let stored = &world.state.services[&at].object.spec;
    let problem = stored.health_check.ineffective_for(&stored.resources[0]);
    assert!(problem.unwrap().contains("set the port of the check"));
    // Other changes are not refused for it.
    world
        .replace_service("provider/dns", spec("tcp", "10.1.0.21"))
        .unwrap();
    world
        .replace_service("provider/dns", spec("udp", "10.1.0.21"))
        .unwrap();
}
