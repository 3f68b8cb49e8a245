//! Permissions of roles, and their bounds: other tenants' objects look like missing ones.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tests::{
    net::process::{fail, succeed},
    services::tls_fixture::{TlsFixture, read_token},
};

/// Returns the permission that an operation of the API requires.
///
/// The table is written by hand, so that a change of the program's own table fails a test.
fn required_permission(operation: &str) -> &'static str {
    match operation {
        "alive" | "ready" => "nothing",
        "show_caller" | "list_events" | "list_tenants" | "list_connections" | "apply"
        | "export" => "anyone",
        "show_tenant"
        | "list_networks"
        | "show_network"
        | "list_services"
        | "show_service"
        | "list_service_connections"
        | "show_connection"
        | "list_endpoints"
        | "show_endpoint"
        | "list_tokens"
        | "show_token"
        | "list_identities"
        | "show_identity"
        | "list_webhooks"
        | "show_webhook" => "read",
        "create_endpoint" | "update_endpoint" | "reconnect_endpoint" | "delete_endpoint" => {
            "endpoints"
        }
        "create_service" | "update_service" | "delete_service" | "approve_connection"
        | "reject_connection" | "remove_connection" => "services",
        "create_token" | "delete_token" | "create_identity" | "delete_identity"
        | "create_webhook" | "delete_webhook" => "access",
        "create_tenant" | "update_tenant" | "delete_tenant" | "create_network"
        | "update_network" | "delete_network" | "show_status" | "list_flows" | "backup"
        | "restore" => "operate",
        unknown => panic!("operation {unknown} has no entry: add its permission to this table"),
    }
}

/// Returns true if a role has a permission. The role of a caller without a credential is `nobody`.
fn has_permission(role: &str, needed: &str) -> bool {
    match needed {
        "nothing" => true,
        "anyone" => role != "nobody",
        "read" => ["viewer", "consumer", "provider", "admin", "operator"].contains(&role),
        "endpoints" => ["consumer", "admin", "operator"].contains(&role),
        "services" => ["provider", "admin", "operator"].contains(&role),
        "access" => ["admin", "operator"].contains(&role),
        "operate" => role == "operator",
        other => panic!("unknown permission {other}"),
    }
}

#[test]
fn every_route_enforces_every_role() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let roles = ["viewer", "consumer", "provider", "admin"];
    let tokens = roles.map(|role| {
        (
            role,
            read_token(&fixture.create_token_file(&format!("a/{role}"), role)),
        )
    });
    let (status, document) = fixture.curl("GET", "/openapi.json", &[]);
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let mut requests = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method = method.to_uppercase();
            let id = operation["operationId"].as_str().expect("an id");
            let needed = required_permission(id);
            let in_tenant = |tenant: &str| {
                path.replace("{tenant}", tenant)
                    .replace("{name}", "nothing")
                    .replace("{link_id}", "7")
            };
            let body = ["-H", "content-type: application/json", "-d", "{}"];
            let body: &[&str] = if operation["requestBody"].is_null() {
                &[]
            } else {
                &body
            };
            let mut request = |token: Option<&str>, tenant: &str| -> (u16, Value) {
                let header = format!("authorization: Bearer {}", token.unwrap_or_default());
                let mut arguments = body.to_vec();
                if token.is_some() {
                    arguments.extend(["-H", &header]);
                }
                requests += 1;
                let (status, text) = fixture.curl(&method, &in_tenant(tenant), &arguments);
                (status, serde_json::from_str(&text).unwrap_or(Value::Null))
            };
            let open = has_permission("nobody", needed);
            assert_eq!(
                request(None, "a").0 != 401,
                open,
                "{id} without a credential"
            );
            assert_eq!(
                request(Some("gwt_unknown"), "a").0 != 401,
                open,
                "{id} with an unknown token"
            );
            for (role, token) in &tokens {
                let (status, answer) = request(Some(token), "a");
                if has_permission(role, needed) {
                    assert!(
                        ![401, 403].contains(&status),
                        "{id} of {role}: {status} {answer}"
                    );
                    let detail = answer["detail"].as_str().unwrap_or_default();
                    assert!(
                        !detail.starts_with("there is no tenant"),
                        "{id} of {role}: {detail}"
                    );
                } else {
                    assert_eq!(
                        (status, &answer["code"]),
                        (403, &json!("forbidden")),
                        "{id} of {role}"
                    );
                }
                if !path.contains("{tenant}") {
                    continue;
                }
                // The answers for another tenant and for a missing one differ in the requested name only.
                let (status, other) = request(Some(token), "shop");
                let (_, never) = request(Some(token), "never");
                assert_eq!(status, 404, "{id} of {role}: {other}");
                let text = other.to_string().replace("shop", "never");
                assert_eq!(text, never.to_string(), "{id} of {role}");
            }
        }
    }
    assert!(requests > 300, "{requests} requests");
    // The operator has every permission, but only on the control socket.
    assert_eq!(fixture.testbed.agent.http("GET", "/v1/status", None).0, 200);
}

#[test]
fn invisible_service_is_indistinguishable_from_a_missing_one() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let agent = &fixture.testbed.agent;
    agent.cli("service update shop/web --visibility b");
    let alias = agent.json("service show shop/web")["status"]["alias"].clone();
    let token = read_token(&fixture.create_token_file("a/t", "admin"));
    let create = |service: &str| {
        let body = json!({ "name": "x", "network": "net", "addresses": ["10.0.0.77"], "service": service });
        let header = format!("authorization: Bearer {token}");
        let body = body.to_string();
        let arguments = [
            "-H",
            &header,
            "-H",
            "content-type: application/json",
            "-d",
            &body,
        ];
        let (status, text) = fixture.curl("POST", "/v1/tenants/a/endpoints", &arguments);
        (status, text.replace(service, "SERVICE"))
    };
    let never = create("never/was");
    assert_eq!(never.0, 404);
    for hidden in [
        "shop/web",
        alias.as_str().expect("an alias"),
        "web.aaaaaaaaaaaaaaaa.privatelink.internal",
    ] {
        assert_eq!(create(hidden), never);
    }
}

#[test]
fn invisible_service_stays_so_for_consumers_that_ask_again() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let agent = &fixture.testbed.agent;
    let token = read_token(&fixture.create_token_file("a/t", "consumer"));
    let header = format!("authorization: Bearer {token}");
    let ask = |body: &str| {
        let json = "content-type: application/json";
        let arguments = ["-H", &header, "-H", json, "-d", body];
        let path = "/v1/tenants/a/endpoints/web/reconnect";
        let (status, text) = fixture.curl("POST", path, &arguments);
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        (status, answer)
    };
    assert_eq!(ask("{}").1["code"], "wrong_state");
    agent.cli("connection remove a/web");
    agent.cli("service update shop/web --visibility b");
    let (status, hidden) = ask("{}");
    let (_, never) = ask(r#"{"service": "never/was"}"#);
    assert_eq!(status, 404, "{hidden}");
    let hidden = hidden.to_string().replace("shop/web", "never/was");
    assert_eq!(hidden, never.to_string());
    agent.cli("service update shop/web --visibility *");
    let (status, endpoint) = ask(r#"{"request_message": "again"}"#);
    assert_eq!(status, 200, "{endpoint}");
    assert_eq!(endpoint["status"]["connection"]["state"], "Pending");
    assert_eq!(endpoint["request_message"], "again");
    // The other side sees a request, and a new connection.
    let events = agent.json("event list --action requested");
    let last = events.as_array().and_then(|events| events.last());
    let last = last.expect("an event");
    assert_eq!(
        (&last["object"], &last["message"]),
        (&json!("a/web"), &json!("again"))
    );
    let listed = agent.json("connection list shop/web");
    assert_eq!(listed[0]["link_id"], last["link_id"]);
}

#[test]
fn tenant_manifest_is_confined_to_the_tenant() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let admin = fixture.create_token_file("a/admin", "admin");
    let viewer = fixture.create_token_file("a/viewer", "viewer");
    let directory = tempfile::tempdir().expect("a directory");
    let apply = |token: &PathBuf, text: &str| {
        let path = directory.path().join("m.yaml");
        fs::write(&path, text).expect("a file");
        fixture.remote_cli(token, &format!("apply -f {}", path.display()))
    };
    // The export of a tenant holds its own objects only, and applies without a change.
    let own = succeed(&mut fixture.remote_cli(&admin, "export"));
    assert!(
        own.contains("name: a\n") && !own.contains("shop/web\n  alias") && !own.contains("gw-p"),
        "{own}"
    );
    assert_eq!(succeed(&mut apply(&viewer, &own)), "nothing to change\n");
    let more = "endpoints: [{tenant: a, name: more, network: net, addresses: [10.0.0.160], service: shop/web}]";
    let refusal = fail(&mut apply(&viewer, more));
    assert!(
        refusal.contains("has role viewer in tenant a, and may not change its endpoints"),
        "{refusal}"
    );
    let done = succeed(&mut apply(&admin, more));
    assert!(done.contains("+ endpoint a/more"), "{done}");
    // An interface of another tenant gets the same refusal as one that does not exist.
    let network = |interface: &str| {
        let text = format!(
            "networks: [{{tenant: a, name: new, attachments: [{{interface: {interface}}}]}}]"
        );
        fail(&mut apply(&admin, &text))
    };
    assert_eq!(network("gw-p"), network("nothing0"));
    let other =
        "services: [{tenant: shop, name: web, network: net, resources: [], nat_addresses: []}]";
    assert!(fail(&mut apply(&admin, other)).contains("there is no tenant shop"));
    // A consumer can't approve its own connection: not of an existing endpoint, not in the manifest that creates
    // the endpoint, and not after the provider removed the connection.
    let approve_own = |name: &str, address: &str| {
        let text = format!(
            "endpoints: [{{tenant: a, name: {name}, network: net, addresses: [{address}], service: shop/web}}]
connections: [{{endpoint: a/{name}, state: Approved}}]"
        );
        fail(&mut apply(&admin, &text))
    };
    let refusal = approve_own("more", "10.0.0.160");
    assert!(
        refusal.contains("is decided by the service's provider"),
        "{refusal}"
    );
    let refusal = approve_own("another", "10.0.0.161");
    assert!(
        refusal.contains("is decided by the service's provider"),
        "{refusal}"
    );
    let agent = &fixture.testbed.agent;
    assert!(
        agent
            .cli_error("endpoint show a/another")
            .contains("there is no")
    );
    agent.cli("connection remove a/more");
    let refusal = approve_own("more", "10.0.0.160");
    assert!(
        refusal.contains("is decided by the service's provider"),
        "{refusal}"
    );
    assert_eq!(
        agent.json("endpoint show a/more")["status"]["connection"]["state"],
        "Disconnected"
    );
}

#[test]
fn dry_run_hides_endpoints_invisible_to_the_caller() {
    let fixture = TlsFixture::start(|_, _, _| {});
    // An approved endpoint of another tenant must look like missing ones, of tenants with and without endpoints.
    fixture.testbed.agent.cli("connection approve b/web");
    let token = fixture.create_token_file("a/viewer", "viewer");
    let directory = tempfile::tempdir().expect("a directory");
    let stranger = "b/web";
    for state in ["Pending", "Approved", "Rejected", "Disconnected"] {
        let dry_run = |endpoint: &str| {
            let path = directory.path().join("m.yaml");
            let text = format!("connections: [{{endpoint: {endpoint}, state: {state}}}]");
            fs::write(&path, text).expect("a file");
            let line = format!("apply --dry-run -f {}", path.display());
            fail(&mut fixture.remote_cli(&token, &line)).replace(endpoint, "ENDPOINT")
        };
        let exists = dry_run(stranger);
        assert!(exists.contains("there is no endpoint"), "{exists}");
        for never in ["b/never", "shop/never", "never/never"] {
            assert_eq!(dry_run(never), exists, "{state}");
        }
    }
}
