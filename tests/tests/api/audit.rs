//! Isolation of audit trails between tenants, escaping of terminal output, and limits of values and tenants.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Map, Value, json};
use tests::{
    net::{process::succeed, topology::Testbed, wait},
    services::{
        agent::{Agent, binary},
        test_ca::TestCa,
    },
};

const LISTEN: &str = "127.0.0.1:8443";

/// A testbed whose gateway has a TLS listener and small event rings.
struct AuditFixture {
    testbed: Testbed,
    authority: TestCa,
}

/// The length of each ring of events.
const EVENT_RETENTION: usize = 100;

impl AuditFixture {
    fn start() -> Self {
        let ca = TestCa::new();
        let mut testbed = Testbed::new();
        testbed.host.ip("link set lo up");
        let server = ca.issue("gateway");
        for (key, value) in [
            ("LISTEN", LISTEN.to_owned()),
            ("TLS_CERTIFICATE", server.certificate.display().to_string()),
            ("TLS_KEY", server.key.display().to_string()),
            ("EVENT_RETENTION", EVENT_RETENTION.to_string()),
            // No rate limit, so that the whole flood is accepted.
            ("CHANGES_PER_SECOND", "0".to_owned()),
            ("TENANT_CHANGES_PER_SECOND", "0".to_owned()),
        ] {
            testbed.agent.settings.insert(format!("PLGW_{key}"), value);
        }
        testbed.agent.stop();
        testbed.agent.restart();
        Self {
            testbed,
            authority: ca,
        }
    }

    /// Creates a token and returns its secret.
    fn token(&self, token: &str, role: &str) -> String {
        let line = format!("tenant token create {token} --role {role}");
        let made = self.testbed.agent.json(&line);
        made["secret"].as_str().expect("a secret").to_owned()
    }

    /// Sends requests over one connection. Returns the status and body of each response.
    fn send(&self, token: &str, requests: &[(&str, &str, Option<String>)]) -> Vec<(u16, String)> {
        let mut config = String::new();
        for (index, (method, path, body)) in requests.iter().enumerate() {
            if index > 0 {
                config.push_str("next\n");
            }
            config.push_str(&format!(
                "url = \"https://{LISTEN}{path}\"\nrequest = {method}\nsilent\nshow-error\nmax-time = 20\n\
                 cacert = \"{}\"\nwrite-out = \"\\n%{{http_code}}\\n\"\n\
                 header = \"authorization: Bearer {token}\"\nheader = \"idempotency-key: fixed\"\n",
                self.authority.certificate().display()
            ));
            if let Some(body) = body {
                let body = body.replace('\\', "\\\\").replace('"', "\\\"");
                config.push_str(&format!(
                    "header = \"content-type: application/json\"\ndata-raw = \"{body}\"\n"
                ));
            }
        }
        let file = self.authority.directory().join("requests");
        fs::write(&file, config).expect("a file");
        let mut command = self.testbed.host.command("curl");
        let output = succeed(command.arg("-K").arg(&file));
        let mut answers = Vec::new();
        let mut body = String::new();
        for line in output.lines() {
            match line.parse() {
                Ok(status) if (100..600).contains(&status) => {
                    answers.push((status, std::mem::take(&mut body)));
                }
                _ => body.push_str(line),
            }
        }
        assert_eq!(answers.len(), requests.len(), "{output}");
        answers
    }

    /// Sends a GET request and returns the body of its 200 response.
    fn get(&self, token: &str, path: &str) -> Value {
        let (status, body) = self.send(token, &[("GET", path, None)]).remove(0);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Changes an endpoint's labels `times` times.
    fn flood(&self, token: &str, endpoint: &str, times: usize) {
        let (tenant, name) = endpoint.split_once('/').expect("a reference");
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}");
        let shown = self.get(token, &path);
        let body = |number: usize| {
            let mut body = json!({ "labels": { "n": number.to_string() } });
            for field in [
                "network",
                "addresses",
                "service",
                "resource",
                "request_message",
            ] {
                body[field] = shown[field].clone();
            }
            body.to_string()
        };
        let requests: Vec<_> = (0..times).map(|n| ("PUT", &*path, Some(body(n)))).collect();
        for (status, body) in self.send(token, &requests) {
            assert_eq!(status, 200, "{body}");
        }
    }
}

/// Returns the ids of a page of events.
fn ids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items").iter();
    items
        .map(|event| event["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn flood_of_label_changes_evicts_no_foreign_events_webhooks_or_idempotency_keys() {
    let mut fixture = AuditFixture::start();
    let agent = &fixture.testbed.agent;
    // Nothing listens at the URL, so the events stay undelivered.
    for webhook in ["b/hook", "a/hook"] {
        agent.cli(&format!(
            "tenant webhook create {webhook} --url http://127.0.0.1:9999/"
        ));
    }
    let victim = fixture.token("b/victim", "consumer");
    let hostile = fixture.token("a/hostile", "consumer");
    let endpoint = json!({
        "name": "mine", "network": "net", "addresses": ["10.0.0.150"], "service": "shop/web",
        "request_message": "please",
    });
    let create = (
        "POST",
        "/v1/tenants/b/endpoints",
        Some(endpoint.to_string()),
    );
    assert_eq!(
        fixture.send(&victim, std::slice::from_ref(&create))[0].0,
        201
    );
    let events = "/v1/events?limit=1000";
    let before = fixture.get(&victim, events);
    let operators = agent
        .json("event list --limit 1000")
        .as_array()
        .expect("a list")
        .clone();
    assert!(ids(&before).len() > 3, "{before}");

    fixture.flood(&hostile, "a/web", 4 * EVENT_RETENTION);

    assert_eq!(fixture.get(&victim, events), before);
    // The events of the operator and those of other classes of the hostile tenant are kept, too.
    let after = agent.json("event list --limit 1000");
    let after = after.as_array().expect("a list");
    for event in &operators {
        assert!(after.contains(event), "{event}");
    }
    assert_eq!(after.len(), operators.len() + EVENT_RETENTION);
    let own = fixture.get(&hostile, events);
    let labels = own["items"].as_array().expect("items").iter();
    assert_eq!(
        labels
            .filter(|event| event["fields"] == json!(["labels"]))
            .count(),
        EVENT_RETENTION
    );
    // The repeated request gets its recorded response, 201. Without the record it would get 200, since the
    // endpoint exists.
    assert_eq!(fixture.send(&victim, &[create])[0].0, 201);
    let status = |webhook: &str| {
        let tenant = webhook.split('/').next().expect("a tenant");
        let list = fixture
            .testbed
            .agent
            .json(&format!("tenant webhook list {tenant}"));
        list[0]["status"].clone()
    };
    assert_eq!(status("b/hook")["events_lost"], 0);
    let lost = status("a/hook")["events_lost"].as_u64();
    assert!(lost >= Some(3 * EVENT_RETENTION as u64 - 1), "{lost:?}");
    // The trail survives a restart.
    fixture.testbed.agent.stop();
    fixture.testbed.agent.restart();
    assert_eq!(fixture.get(&victim, events), before);
}

#[test]
fn event_log_is_followed_and_resumed_by_opaque_ids() {
    let fixture = AuditFixture::start();
    let own = fixture.token("b/own", "consumer");
    let other = fixture.token("a/other", "consumer");
    let endpoint = |name: &str, address: &str| json!({ "name": name, "network": "net", "addresses": [address], "service": "shop/web" });
    let create = |name: &str, address: &str| {
        let body = endpoint(name, address).to_string();
        let created = fixture.send(&own, &[("POST", "/v1/tenants/b/endpoints", Some(body))]);
        let (status, body) = &created[0];
        // 422 is the response to a reused idempotency key with another body.
        assert!([201, 422].contains(status), "{body}");
        serde_json::from_str::<Value>(body).expect("JSON")
    };
    let first = create("first", "10.0.0.151");
    let path = "/v1/tenants/b/endpoints/first";
    let mut versions = vec![first["version"].as_u64().expect("a number")];
    for round in 0..6 {
        fixture.flood(&other, "a/web", 5);
        assert_eq!(
            fixture.get(&own, path)["version"],
            versions[round],
            "another tenant's changes leave the version alone"
        );
        fixture.flood(&own, "b/first", 1);
        versions.push(
            fixture.get(&own, path)["version"]
                .as_u64()
                .expect("a number"),
        );
    }
    assert!(
        versions.iter().all(|version| *version < 1 << 53),
        "{versions:?}"
    );
    let steps: Vec<i128> = versions
        .windows(2)
        .map(|pair| i128::from(pair[1]) - i128::from(pair[0]))
        .collect();
    // Versions are opaque. A counter would advance by six each time and show how much other tenants change.
    assert!(steps.iter().all(|step| step.abs() > 1_000_000), "{steps:?}");

    let all = fixture.get(&own, "/v1/events?limit=1000");
    let ids = ids(&all);
    assert!(
        ids.is_sorted() && ids.iter().all(|id| id.len() == 36 && &id[14..15] == "7"),
        "{ids:?}"
    );
    let rest = fixture.get(&own, &format!("/v1/events?after={}&limit=2", ids[0]));
    assert_eq!(self::ids(&rest), ids[1..3]);
    assert_eq!(rest["next"], ids[2].as_str());
    let text = all.to_string();
    assert!(!text.contains("a/web"), "{text}");
}

/// Starts a server on a unix socket that gives every request the same response.
fn hostile_server(path: &PathBuf, status: &'static str, body: String) {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            let _gone = stream.write_all(head.as_bytes());
            let _gone = stream.write_all(body.as_bytes());
        }
    });
}

/// Characters that no terminal may receive: an escape sequence, a C1 control character, a directional override, a
/// zero-width space, and a line feed within a value.
const HOSTILE: &str = "x\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\nforged";

/// Checks that output holds no forbidden character, and no line that a value forged.
fn assert_no_control_characters(output: &[u8]) {
    let text = String::from_utf8(output.to_vec()).expect("UTF-8");
    let bad = |c: char| c != '\n' && gateway::model::text::is_forbidden(c);
    assert!(!text.chars().any(bad), "{text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("forged")),
        "{text:?}"
    );
}

#[test]
fn terminal_output_escapes_hostile_server_responses() {
    let directory = tempfile::tempdir().expect("a directory");
    let tenant = json!({
        "name": "a", "uid": "00000000-0000-4000-8000-000000000000", "version": 1,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        "labels": { HOSTILE: HOSTILE }, "quotas": {},
        "status": { "usage": { "networks": 0, "services": 0, "endpoints": 0 } },
    });
    let event = json!({
        "id": "00000000-0000-4000-8000-000000000000", "at": "2026-01-01T00:00:00Z",
        "action": "created", "kind": "tenant", "object": HOSTILE, "message": HOSTILE,
        "actor": HOSTILE, "from": HOSTILE, "fields": [HOSTILE],
    });
    let problem = json!({
        "type": "about:blank", "title": HOSTILE, "status": 422, "detail": HOSTILE,
        "code": "invalid", "field": HOSTILE,
    });
    let page = |item: &Value| json!({ "items": [item] });
    let difference = json!({ "differences": [{
        "action": "update", "kind": "tenant", "object": HOSTILE,
        "fields": [{ "field": HOSTILE, "old": HOSTILE, "new": HOSTILE }],
    }] });
    let manifest = directory.path().join("m.yaml");
    fs::write(&manifest, "tenants: [{name: a}]\n").expect("a file");
    let apply = format!("apply -f {}", manifest.display());
    for (number, (status, answer, line)) in [
        ("200 OK", tenant.clone(), "tenant show a"),
        ("200 OK", page(&tenant), "tenant list"),
        ("200 OK", page(&event), "event list"),
        ("200 OK", difference, &apply),
        ("422 Unprocessable Content", problem, "tenant show a"),
        ("200 OK", json!({ HOSTILE: HOSTILE }), "tenant show a"),
        (
            "200 OK",
            json!({ "items": [{ "kind": HOSTILE }] }),
            "event list",
        ),
        (
            "200 OK",
            json!({ "differences": [{ "action": HOSTILE }] }),
            &apply,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = directory.path().join(format!("{number}.sock"));
        hostile_server(&socket, status, answer.to_string());
        for format in ["table", "json", "yaml"] {
            let mut command = Command::new(binary());
            command
                .args(["-o", format])
                .args(line.split(' '))
                .arg("--socket")
                .arg(&socket);
            let output = command.output().expect("the command line");
            let whole = [&output.stdout[..], &output.stderr].concat();
            assert!(!whole.is_empty(), "{line}");
            assert_no_control_characters(&whole);
            // JSON and YAML output is escaped without loss.
            if format != "table" && answer == tenant {
                let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                assert_eq!(shown["labels"][HOSTILE], HOSTILE);
            }
        }
    }
}

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
