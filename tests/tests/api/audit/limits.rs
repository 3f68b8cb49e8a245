//! Limits of each value of a request, and of all objects of a tenant.

use std::{collections::BTreeMap, io::Read as _, process::Stdio};

use serde_json::{Map, Value, json};
use tests::{
    net::{topology::Testbed, wait},
    services::agent::Agent,
};

use crate::assert_no_control_characters;

/// Returns a schema with its reference resolved.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => {
            let name = name.rsplit('/').next().expect("a name");
            &document["components"]["schemas"][name]
        }
        None => schema,
    }
}

/// Adds bodies that break exactly one rule of a schema: a length, a number of items, or the allowed characters.
/// Each comes with a part of the expected problem's detail.
fn violations(
    document: &Value,
    schema: &Value,
    wrap: &dyn Fn(Value) -> Value,
    found: &mut Vec<(Value, String)>,
) {
    let schema = resolve(document, schema);
    let limit = |key: &str| {
        schema[key]
            .as_u64()
            .and_then(|limit| usize::try_from(limit).ok())
    };
    if let Some(limit) = limit("maxLength") {
        found.push((
            wrap(json!("x".repeat(limit + 1))),
            format!("at most {limit}"),
        ));
        for refused in [
            "\u{1b}[2J",
            "\u{9b}",
            "\u{202e}",
            "\u{2067}",
            "\u{200b}",
            "\u{2028}",
            "\u{e000}",
        ] {
            found.push((
                wrap(json!(format!("a{refused}"))),
                "must not hold".to_owned(),
            ));
        }
    }
    // More items than this do not fit into a body.
    if let Some(limit) = limit("maxItems").filter(|limit| *limit < 10_000) {
        found.push((wrap(json!(vec![0; limit + 1])), format!("at most {limit}")));
    }
    if let Some(limit) = limit("maxProperties") {
        let entries = (0..=limit).map(|number| (number.to_string(), json!("")));
        let map: Map<String, Value> = entries.collect();
        found.push((wrap(Value::Object(map)), format!("at most {limit}")));
        found.push((
            wrap(json!({ "k\u{202e}": "v" })),
            "must not hold".to_owned(),
        ));
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        for one in schema[several].as_array().into_iter().flatten() {
            violations(document, one, wrap, found);
        }
    }
    if schema["items"].is_object() {
        violations(
            document,
            &schema["items"],
            &|value| wrap(json!([value])),
            found,
        );
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        violations(
            document,
            property,
            &|value| wrap(json!({ name: value })),
            found,
        );
    }
    if schema["additionalProperties"].is_object() {
        let inner = &schema["additionalProperties"];
        violations(
            document,
            inner,
            &|value| wrap(json!({ "key": value })),
            found,
        );
    }
}

#[test]
fn values_beyond_each_limit_and_invisible_characters_are_refused() {
    let testbed = Testbed::new();
    let agent = &testbed.agent;
    let document: Value =
        serde_json::from_str(&agent.http("GET", "/openapi.json", None).1).expect("JSON");
    let mut tried: BTreeMap<String, usize> = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                continue;
            }
            let path = path
                .replace("{tenant}", "a")
                .replace("{name}", "web")
                .replace("{link_id}", "7");
            let mut bodies = Vec::new();
            violations(&document, schema, &|value| value, &mut bodies);
            for (body, expected) in bodies {
                let text = body.to_string();
                let (status, answer) = agent.http(&method.to_uppercase(), &path, Some(&text));
                assert_eq!(status, 422, "{method} {path} {text:.200}: {answer}");
                let problem: Value = serde_json::from_str(&answer).expect("JSON");
                let detail = problem["detail"].as_str().expect("a detail");
                assert!(
                    detail.contains(&expected),
                    "{method} {path} {text:.200}: {answer}"
                );
                assert!(problem["field"].is_string(), "{answer}");
                assert_no_control_characters(answer.as_bytes());
                *tried.entry(path.clone()).or_default() += 1;
            }
        }
    }
    assert!(
        tried.len() > 8 && tried.values().sum::<usize>() > 200,
        "{tried:?}"
    );
}

#[test]
fn tenant_service_quota_is_enforced() {
    let testbed = Testbed::new();
    let agent: &Agent = &testbed.agent;
    let names = |prefix: &str| -> Vec<String> {
        (0..512)
            .map(|number| format!("{prefix}{number:0>60}"))
            .collect()
    };
    let service = |number: usize, more: Value| {
        let mut body = json!({
            "name": format!("s{number}"), "network": "net",
            "resources": [{ "ports": [{ "port": 443 }], "backends": [{ "address": "10.1.0.10" }] }],
            "nat_addresses": [format!("10.9.{}.{}", number / 250, number % 250 + 1)],
            "visibility": names("a"), "auto_approval": names("b"), "denied": names("c"),
        });
        let more: Map<String, Value> = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        agent.http("POST", "/v1/tenants/shop/services", Some(&body.to_string()))
    };
    let long = json!({ "visibility": (0..513).map(|n| format!("t{n}")).collect::<Vec<_>>() });
    let (status, answer) = service(0, long);
    assert!(status == 422 && answer.contains("at most 512"), "{answer}");
    // Each service is within the limits of one service; all of them exceed the limit of a tenant.
    let mut last = (0, String::new());
    let mut made = 0;
    for number in 0..256 {
        last = service(number, json!({}));
        if last.0 != 201 {
            break;
        }
        made += 1;
    }
    assert!(
        last.0 == 409 && last.1.contains("limit_reached"),
        "{made}: {}",
        last.1
    );
    assert!(made > 100, "{made}");
    // A deletion makes room again, and other tenants are not affected.
    agent.cli("service delete shop/s0");
    assert_eq!(service(0, json!({})).0, 201);
    agent.cli("endpoint create b/other --network net --address 10.0.0.160 --service shop/web");
    wait::until_true("the listener", || {
        agent.http("GET", "/readyz", None).0 == 200
    });
    let mut text = String::new();
    let mut listed = agent.cli_command("service list shop");
    let mut child = listed.stdout(Stdio::piped()).spawn().expect("a command");
    child
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut text)
        .expect("text");
    assert!(child.wait().expect("an exit status").success() && text.contains("shop/s100"));
}
