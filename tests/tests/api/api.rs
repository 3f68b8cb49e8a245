//! Behaviour of the API and the command line: problems, lists, versions, connection states and output formats.

use serde_json::{Value, json};
use tests::{
    net::{
        namespace::Namespace,
        topology::{ENDPOINT, Testbed},
    },
    services::agent::Agent,
};

use std::sync::Arc;

/// Parses a problem (RFC 9457).
fn problem(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not a problem: {text}"))
}

#[test]
fn problems_have_a_code_a_field_and_a_detail() {
    let testbed = Testbed::new();
    let endpoint = |address: &str| {
        json!({ "name": "new", "network": "net", "addresses": [address], "service": "shop/web" })
            .to_string()
    };
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    let tenants = "/v1/tenants";
    let endpoints = "/v1/tenants/a/endpoints";
    for (method, path, body, status, code, field, expected) in [
        (
            "GET",
            "/v1/nothing",
            None,
            404,
            "not_found",
            "",
            "nothing at /v1/nothing",
        ),
        (
            "GET",
            "/v1/tenants/nobody",
            None,
            404,
            "not_found",
            "",
            "there is no tenant nobody",
        ),
        (
            "GET",
            "/v1/tenants/No.Name",
            None,
            404,
            "not_found",
            "",
            "there is no tenant No.Name",
        ),
        (
            "GET",
            "/v1/tenants/%ff",
            None,
            400,
            "malformed",
            "",
            "UTF-8",
        ),
        (
            "PATCH",
            tenants,
            None,
            405,
            "method_not_allowed",
            "",
            "does not take PATCH",
        ),
        ("POST", tenants, Some("{"), 400, "malformed", "", "EOF"),
        (
            "POST",
            tenants,
            Some("[]"),
            400,
            "malformed",
            "",
            "must be a JSON object",
        ),
        (
            "POST",
            tenants,
            Some("{} {}"),
            400,
            "malformed",
            "",
            "trailing characters",
        ),
        (
            "POST",
            tenants,
            Some("{\"name\":\"x\",\"extra\":1}"),
            422,
            "invalid",
            "extra",
            "unknown field `extra`",
        ),
        (
            "POST",
            tenants,
            Some("{\"name\":7}"),
            422,
            "invalid",
            "name",
            "string",
        ),
        (
            "POST",
            tenants,
            Some("{\"name\":\"Bad Name\"}"),
            422,
            "invalid",
            "name",
            "is not a name",
        ),
        (
            "POST",
            tenants,
            Some("{}"),
            422,
            "invalid",
            "name",
            "needs a name",
        ),
        (
            "POST",
            tenants,
            Some("{\"name\":\"a\",\"quotas\":{\"networks\":3}}"),
            409,
            "already_exists",
            "name",
            "exists already",
        ),
        (
            "POST",
            tenants,
            Some(long.as_str()),
            413,
            "too_large",
            "",
            "larger than",
        ),
        (
            "POST",
            endpoints,
            Some(&endpoint(ENDPOINT)),
            409,
            "in_use",
            "addresses[0]",
            "endpoint a/web",
        ),
        (
            "POST",
            endpoints,
            Some(&endpoint("x")),
            422,
            "invalid",
            "addresses[0]",
            "IP address",
        ),
        (
            "GET",
            "/v1/tenants?limit=0",
            None,
            422,
            "invalid",
            "limit",
            "1 to 1000",
        ),
        ("GET", "/v1/tenants?limit=x", None, 400, "malformed", "", ""),
        (
            "GET",
            "/v1/flows?endpoint=a%2Fnone",
            None,
            404,
            "not_found",
            "",
            "there is no endpoint a/none",
        ),
        (
            "DELETE",
            "/v1/tenants/a",
            None,
            409,
            "has_dependents",
            "",
            "delete them first",
        ),
        (
            "DELETE",
            "/v1/tenants/shop/services/web?force=perhaps",
            None,
            400,
            "malformed",
            "",
            "",
        ),
        (
            "POST",
            "/v1/tenants/shop/services/web/connections/7/approve",
            Some("{}"),
            404,
            "not_found",
            "",
            "no connection 7",
        ),
        (
            "POST",
            "/v1/tenants/shop/services/web/connections/x/approve",
            Some("{}"),
            404,
            "not_found",
            "",
            "no connection x",
        ),
        (
            "POST",
            "/v1/tenants/shop/services/web/connections/7/bless",
            Some("{}"),
            404,
            "not_found",
            "",
            "there is nothing at",
        ),
    ] {
        let (got, text) = testbed.agent.http(method, path, body);
        let document = problem(&text);
        assert_eq!(
            (got, &document["code"]),
            (status, &json!(code)),
            "{method} {path}: {text}"
        );
        assert_eq!(document["status"], status);
        assert_eq!(
            document["field"].as_str().unwrap_or(""),
            field,
            "{method} {path}: {text}"
        );
        let detail = document["detail"].as_str().unwrap_or("");
        assert!(detail.contains(expected), "{method} {path}: {text}");
        assert!(!document["title"].as_str().unwrap_or("").is_empty());
    }
    // No refused request changed anything.
    assert_eq!(
        testbed.agent.json("tenant list").as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(
        testbed.agent.json("endpoint list").as_array().map(Vec::len),
        Some(2)
    );
}

#[test]
fn request_content_type_must_be_json() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::start(&host);
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--unix-socket"]).arg(agent.socket());
    curl.args([
        "-H",
        "content-type: text/plain",
        "-d",
        "{}",
        "http://x/v1/tenants",
    ]);
    let text = tests::net::process::succeed(&mut curl);
    assert!(text.contains("application/json"), "{text}");
}

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
fn cli_errors_print_one_sentence_and_exit_with_status_1() {
    let testbed = Testbed::new();
    for (line, expected) in [
        ("tenant create a --networks 3", "tenant a exists already"),
        ("tenant delete nobody", "there is no tenant nobody"),
        ("network show a/none", "there is no network a/none"),
        (
            "network create b/more --interface gw-a",
            "gw-a is attached to another network",
        ),
        (
            "service create shop/two --network net --port 80 --nat 10.1.0.70",
            "source NAT addresses of service shop/web",
        ),
        (
            "service create shop/two --network a/net --port 80 --nat 10.1.2.0/30",
            "is of another tenant",
        ),
        (
            "service backend remove shop/web 10.1.0.99",
            "has no backend 10.1.0.99",
        ),
        (
            "service resource add shop/web default --port 80",
            "already has a resource default",
        ),
        (
            "service resource remove shop/web none",
            "has no resource none",
        ),
        ("service resource remove shop/web default", ""),
        (
            "endpoint create a/two --network net --address 10.0.0.101 --service shop/none",
            "there is no service shop/none",
        ),
        (
            "connection approve a/none",
            "endpoint a/none has no connection",
        ),
    ] {
        let output = tests::net::process::run(
            &mut testbed.agent.cli_command(line),
            std::time::Duration::from_secs(20),
        )
        .expect("the command line");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {text}");
        assert!(
            text.starts_with("plgw: ") && text.contains(expected),
            "{line}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        assert!(output.stdout.is_empty());
    }
    for line in [
        "tenant create Bad",
        "network create a",
        "endpoint create a/x",
        "nonsense",
        "service create shop/x --network net --port 0 --nat 10.1.2.0/30",
    ] {
        let output = tests::net::process::run(
            &mut testbed.agent.cli_command(line),
            std::time::Duration::from_secs(20),
        )
        .expect("the command line");
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
}

#[test]
fn tables_fit_100_columns_and_json_and_yaml_are_complete() {
    let testbed = Testbed::with_approved_connections();
    testbed
        .agent
        .cli("network create a/out --interface not-there");
    for line in [
        "tenant list",
        "tenant show a",
        "network list",
        "network show a/net",
        "network show a/out",
        "service list",
        "service show shop/web",
        "endpoint list",
        "endpoint show a/web",
        "connection list",
        "flow list",
        "status",
    ] {
        let text = testbed.agent.cli(line);
        for row in text.lines() {
            assert!(row.chars().count() <= 100, "{line}: {row:?}");
        }
        testbed.agent.json(line);
        assert!(!testbed.agent.cli(&format!("{line} -o yaml")).is_empty());
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            testbed
                .agent
                .cli(&format!("completions {shell}"))
                .contains("gateway")
        );
    }
    assert!(testbed.agent.cli("config check").contains("state_dir"));
}

#[test]
fn control_socket_is_restricted_to_root_and_its_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::start(&host);
    let mode = std::fs::metadata(agent.socket())
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let store = agent.state_directory().join("state.db");
    let mode = std::fs::metadata(store)
        .expect("a store")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
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
