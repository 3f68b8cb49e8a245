//! Lists, versions, connection states and resources of objects.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::{
    net::{namespace::Namespace, topology::Testbed},
    services::agent::Agent,
};

use crate::problem;

#[test]
fn lists_are_paginated() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::start(&host);
    for number in 0..5 {
        agent.cli(&format!("tenant create t{number}"));
    }
    let (status, first) = agent.http("GET", "/v1/tenants?limit=3", None);
    let first: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(
        (status, first["items"].as_array().map(Vec::len)),
        (200, Some(3))
    );
    assert_eq!(first["next"], "t2");
    let (_, second) = agent.http("GET", "/v1/tenants?limit=3&after=t2", None);
    let second: Value = serde_json::from_str(&second).expect("JSON");
    assert_eq!(second["items"].as_array().map(Vec::len), Some(2));
    assert!(second["next"].is_null(), "{second}");
}

#[test]
fn write_with_a_stale_version_is_refused() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::start(&host);
    agent.cli("tenant create t");
    let version = agent.json("tenant show t")["version"]
        .as_u64()
        .expect("a version");
    let put = |version: u64| {
        let body = json!({ "version": version, "labels": { "at": version.to_string() } });
        agent.http("PUT", "/v1/tenants/t", Some(&body.to_string()))
    };
    assert_eq!(put(version).0, 200);
    let (status, text) = put(version);
    assert_eq!(
        (status, &problem(&text)["code"]),
        (409, &json!("version_conflict")),
        "{text}"
    );
    assert_eq!(
        agent.json("tenant show t")["labels"]["at"],
        version.to_string()
    );
}

#[test]
fn connection_states_follow_the_documented_lifecycle() {
    let testbed = Testbed::new();
    let state = || {
        testbed.agent.json("endpoint show a/web")["status"]["connection"]["state"]
            .as_str()
            .expect("a state")
            .to_owned()
    };
    assert_eq!(state(), "Pending");
    for (verb, wanted) in [
        ("approve", "Approved"),
        ("reject", "Rejected"),
        ("approve", "Approved"),
        ("remove", "Disconnected"),
    ] {
        testbed
            .agent
            .cli(&format!("connection {verb} a/web --reason because"));
        assert_eq!(state(), wanted);
    }
    let connection = testbed.agent.json("endpoint show a/web")["status"]["connection"].clone();
    assert_eq!(connection["reason"], "because");
    assert_eq!(connection["decided_by"], "operator (uid 0)");
    for verb in ["approve", "reject", "remove"] {
        let text = testbed.agent.cli_error(&format!("connection {verb} a/web"));
        assert!(text.contains("Disconnected is final"), "{text}");
    }
    testbed.agent.cli("connection approve b/web");
    assert!(
        testbed
            .agent
            .cli_error("connection approve b/web")
            .contains("Approved can't be approved")
    );
    let text = testbed.agent.cli_error("service delete shop/web");
    assert!(
        text.contains("1 approved connections") && text.contains("force"),
        "{text}"
    );
    testbed.agent.cli("service delete shop/web --force");
    assert_eq!(
        testbed.agent.json("endpoint show b/web")["status"]["connection"]["state"],
        "Disconnected"
    );
    for endpoint in ["a/web", "b/web"] {
        testbed.agent.cli(&format!("endpoint delete {endpoint}"));
    }
    for tenant in ["a", "b", "shop"] {
        testbed.agent.cli(&format!("network delete {tenant}/net"));
        testbed.agent.cli(&format!("tenant delete {tenant}"));
    }
    assert_eq!(testbed.agent.cli("tenant list"), "none\n");
}

#[test]
fn resources_can_be_added_and_bound_ones_cannot_be_removed() {
    let testbed = Testbed::new();
    let agent = &testbed.agent;
    let shown = agent.cli("service resource add shop/web sql --port 5432 --backend 10.1.0.20");
    assert!(
        shown.contains("5432") && shown.contains("10.1.0.20"),
        "{shown}"
    );
    agent.cli(
        "endpoint create a/sql --network net --address 10.0.0.150 --service shop/web --resource sql",
    );
    let refusal = agent.cli_error("service resource remove shop/web sql");
    assert!(refusal.contains("sql"), "{refusal}");
    agent.cli("service resource update shop/web sql --port 5433:5432 --port 5434");
    let spec = &agent.json("service show shop/web");
    assert_eq!(spec["resources"][1]["ports"][0]["port"], 5433);
    assert_eq!(spec["resources"][1]["ports"][1]["port"], 5434);
    assert_eq!(spec["resources"][1]["backends"][0]["address"], "10.1.0.20");
    agent.cli("endpoint delete a/sql");
    agent.cli("service resource remove shop/web sql");
    let spec = &agent.json("service show shop/web");
    assert_eq!(spec["resources"].as_array().map(Vec::len), Some(1));
}

#[test]
fn consumer_view_hides_the_service_location() {
    let testbed = Testbed::new();
    let text = testbed.agent.cli("-o json endpoint show a/web");
    for secret in ["10.1.0.", "gw-p"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let service = testbed.agent.json("service show shop/web");
    let alias = service["status"]["alias"].as_str().expect("an alias");
    let parts: Vec<&str> = alias.splitn(3, '.').collect();
    assert_eq!(
        (parts[0], parts[1].len(), parts[2]),
        ("web", 16, "privatelink.internal")
    );
    assert!(!alias.contains("shop"));
}
