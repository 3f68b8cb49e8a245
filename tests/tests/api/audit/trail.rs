//! Audit trails: a flood of one tenant's events leaves other tenants' trails, webhooks and idempotency keys alone.

use std::fs;

use serde_json::{Value, json};
use tests::{
    net::{process::succeed, topology::Testbed},
    services::test_ca::TestCa,
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
