//! Problems: status, code, field and detail of refused requests.

use std::sync::Arc;

use serde_json::json;
use tests::{
    net::{
        namespace::Namespace,
        topology::{ENDPOINT, Testbed},
    },
    services::agent::Agent,
};

use crate::problem;

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
