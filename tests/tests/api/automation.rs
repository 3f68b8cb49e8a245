//! Manifests, idempotent requests, concurrent decisions and webhooks: the parts of the API that programs use.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::mpsc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests::{
    net::{
        process::{fail, succeed},
        topology::{ENDPOINT, Testbed},
        wait,
    },
    services::agent::Agent,
};

/// Exports all objects as a manifest.
fn export(agent: &Agent) -> String {
    agent.cli("export")
}

#[test]
fn exported_manifest_recreates_the_same_state() {
    let testbed = Testbed::new();
    let agent = &testbed.agent;
    agent.cli("network update a/net --prefix 10.0.0.0/16 --pool 10.0.0.0/24 --label floor=3");
    agent
        .cli("endpoint create a/pooled --network net --service shop/web --message two --label x=y");
    agent.cli("connection approve a/web --reason fine");
    agent.cli("connection reject b/web --reason no");
    // With this visibility, tenant a could not create its endpoints again. The manifest must still recreate them.
    agent.cli("service update shop/web --visibility b --auto-approval b");
    agent.cli("tenant create idle --endpoints 7");
    let fingerprint = "a5".repeat(32);
    agent.cli(&format!(
        "tenant identity create a/cert --issuer certificate --claim sha256 --value {fingerprint} --role viewer"
    ));
    let whole = export(agent);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("all.yaml");
    fs::write(&path, &whole).expect("a file");
    let file = path.display();
    // Applied to its own source, the manifest changes nothing.
    let before = agent.json("status");
    assert_eq!(
        agent.cli(&format!("apply -f {file} --prune")),
        "nothing to change\n"
    );
    // A manifest of one tenant prunes everything else.
    let little = directory.path().join("little.yaml");
    fs::write(&little, "tenants: [{name: only}]\n").expect("a file");
    let little = little.display();
    let refusal = agent.cli_error(&format!("apply -f {little} --prune"));
    assert!(refusal.contains("approved connections"), "{refusal}");
    assert_eq!(export(agent), whole);
    let output = agent.cli(&format!("apply -f {little} --prune --force --dry-run"));
    assert!(
        output.contains("- service shop/web") && output.contains("+ tenant only"),
        "{output}"
    );
    assert!(output.ends_with("nothing was changed\n"), "{output}");
    assert_eq!(export(agent), whole);
    agent.cli(&format!("apply -f {little} --prune --force"));
    assert_eq!(agent.json("tenant list").as_array().map(Vec::len), Some(1));
    // The export restores the same state byte for byte, including the data path's.
    agent.cli(&format!("apply -f {file} --prune"));
    assert_eq!(export(agent), whole);
    assert_eq!(agent.json("status")["objects"], before["objects"]);
    let states: Vec<Value> = ["a/web", "b/web", "a/pooled"]
        .iter()
        .map(|endpoint| {
            agent.json(&format!("endpoint show {endpoint}"))["status"]["connection"]["state"]
                .clone()
        })
        .collect();
    assert_eq!(states, ["Approved", "Rejected", "Pending"]);
    testbed.wait_for_backends();
    let _server =
        tests::services::nginx::Nginx::start(&testbed.provider, tests::net::topology::BACKENDS[0]);
    agent.cli(&format!(
        "service backend remove shop/web {}",
        tests::net::topology::BACKENDS[1]
    ));
    let fetched = succeed(
        &mut testbed
            .a
            .command_line(&format!("curl -sS -m 10 http://{ENDPOINT}/name")),
    );
    assert_eq!(fetched.trim(), tests::net::topology::BACKENDS[0]);
}

#[test]
fn manifest_is_applied_atomically_with_a_readable_diff() {
    let testbed = Testbed::new();
    let agent = &testbed.agent;
    let directory = tempfile::tempdir().expect("a directory");
    let apply = |text: &str, more: &str| {
        let path = directory.path().join("m.yaml");
        fs::write(&path, text).expect("a file");
        agent.cli_command(&format!("apply -f {} {more}", path.display()))
    };
    let before = export(agent);
    let good_then_bad = "
tenants: [{name: c}]
endpoints:
- {tenant: a, name: new, network: net, addresses: [10.0.0.150], service: shop/web}
- {tenant: a, name: clash, network: net, addresses: [10.0.0.100], service: shop/web}
";
    let refusal = fail(&mut apply(good_then_bad, ""));
    assert!(
        refusal.contains("endpoint a/clash: 10.0.0.100 is the address of endpoint a/web"),
        "{refusal}"
    );
    assert!(
        refusal.contains("endpoints[a/clash].addresses[0]"),
        "{refusal}"
    );
    assert_eq!(export(agent), before);
    let twice = "tenants: [{name: c}, {name: c}]";
    let refusal = fail(&mut apply(twice, ""));
    assert!(
        refusal.contains("tenant c is in the manifest twice"),
        "{refusal}"
    );
    let change = before.replace("  visibility:\n  - '*'", "  visibility:\n  - a");
    assert_ne!(change, before, "the export has another format:\n{before}");
    let output = succeed(&mut apply(&change, "--dry-run"));
    assert!(
        output.contains("~ service shop/web\n    visibility[0]: * -> a\n"),
        "{output}"
    );
    assert!(
        output.contains("would create 0, change 1 and delete 0"),
        "{output}"
    );
    assert_eq!(export(agent), before);
    let output = succeed(&mut apply(&change, ""));
    assert!(
        output.contains("0 created, 1 changed, 0 deleted"),
        "{output}"
    );
    assert_eq!(succeed(&mut apply(&change, "")), "nothing to change\n");
    let fixed = "endpoints: [{tenant: a, name: web, network: net, addresses: [10.0.0.99], service: shop/web}]";
    let refusal = fail(&mut apply(fixed, ""));
    assert!(refusal.contains("can't be changed"), "{refusal}");
    assert!(fail(&mut apply("", "--prune --force")).contains("describes no object"));
}

#[test]
fn repeated_idempotent_request_is_executed_once() {
    let mut testbed = Testbed::new();
    let agent = &testbed.agent;
    agent.cli("network update a/net --pool 10.0.0.0/24");
    let body = json!({ "name": "once", "network": "net", "service": "shop/web" });
    let socket = agent.socket();
    let post = |body: &Value, key: Option<&str>| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "-m", "20", "-w", "\n%{http_code}", "--unix-socket"]);
        command.arg(&socket);
        if let Some(key) = key {
            command.args(["-H", &format!("idempotency-key: {key}")]);
        }
        command.args([
            "-H",
            "content-type: application/json",
            "-d",
            &body.to_string(),
        ]);
        command.arg("http://plgw/v1/tenants/a/endpoints");
        let output = succeed(&mut command);
        let (text, status) = output.rsplit_once('\n').expect("a status");
        let value: Value = serde_json::from_str(text).expect("JSON");
        (status.parse::<u16>().expect("a status"), value)
    };
    let (status, first) = post(&body, Some("k1"));
    assert_eq!(status, 201);
    let (status, again) = post(&body, Some("k1"));
    assert_eq!((status, &again["uid"]), (201, &first["uid"]));
    // Without a key, the status tells an existing endpoint (200) from a created one (201).
    let (status, same) = post(&body, None);
    assert_eq!((status, &same["uid"]), (200, &first["uid"]));
    let mut other = body.clone();
    other["request_message"] = "other".into();
    let (status, refusal) = post(&other, Some("k1"));
    assert_eq!(
        (status, &refusal["code"]),
        (422, &json!("invalid")),
        "{refusal}"
    );
    assert_eq!(post(&other, None).0, 409);
    // Keys survive a restart, since the store holds them.
    testbed.agent.stop();
    testbed.agent.restart();
    let agent = &testbed.agent;
    agent.cli("endpoint delete a/once");
    let (status, refusal) = post(&body, Some("k1"));
    assert_eq!(status, 409, "{refusal}");
    assert!(
        refusal["detail"]
            .as_str()
            .expect("a detail")
            .contains("that it created is gone")
    );
    assert_eq!(post(&body, Some("k2")).0, 201);
}

#[test]
fn exactly_one_of_concurrent_decisions_wins() {
    let testbed = Testbed::new();
    let agent = &testbed.agent;
    let link = agent.json("endpoint show a/web")["status"]["connection"]["link_id"].clone();
    let list = agent.json("connection list shop/web");
    let version = list[0]["version"].clone();
    let path =
        |decision: &str| format!("/v1/tenants/shop/services/web/connections/{link}/{decision}");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let racers: Vec<_> = [
            "approve", "reject", "approve", "remove", "reject", "approve",
        ]
        .iter()
        .map(|decision| {
            let body = json!({ "version": version, "reason": *decision }).to_string();
            let path = path(decision);
            scope.spawn(move || agent.http("POST", &path, Some(&body)).0)
        })
        .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("an answer"))
            .collect()
    });
    let won = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(won, 1, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 409].contains(status)),
        "{statuses:?}"
    );
}

/// Starts a server for webhooks that fails the first attempts and sends later requests, headers and body, to the
/// receiver.
fn webhook_receiver(
    listener: TcpListener,
    failures: usize,
) -> mpsc::Receiver<(Vec<String>, String)> {
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream);
            let mut headers = Vec::new();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                headers.push(line.trim().to_owned());
                line.clear();
            }
            let length = headers
                .iter()
                .find_map(|header| {
                    header
                        .to_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse()
                        .ok()
                })
                .unwrap_or(0);
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let answer = if number < failures {
                "503 Later"
            } else {
                "204 Thanks"
            };
            let text =
                format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let _gone = reader.get_mut().write_all(text.as_bytes());
            if number >= failures {
                let text = String::from_utf8(body).expect("text");
                if sender.send((headers, text)).is_err() {
                    return;
                }
            }
        }
    });
    received
}

#[test]
fn webhook_is_signed_delivered_promptly_and_retried_after_failures() {
    let mut testbed = Testbed::new();
    testbed.host.ip("link set lo up");
    let listener = testbed
        .host
        .run_in(|| TcpListener::bind("127.0.0.1:0").expect("a listener"));
    let port = listener.local_addr().expect("its address").port();
    let url = format!("http://127.0.0.1:{port}/hook");
    // A loopback address is refused until the operator allows it with webhook_networks.
    let made = testbed
        .agent
        .json(&format!("tenant webhook create shop/desk --url {url}"));
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    testbed
        .agent
        .cli("endpoint create a/early --network net --address 10.0.0.130 --service shop/web");
    wait::until_true("the refusal", || {
        let listed = testbed.agent.json("tenant webhook list shop");
        let error = listed[0]["status"]["last_error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        error.contains("could not be reached")
    });
    let log = testbed.agent.log();
    assert!(
        log.contains("allow the network with webhook_networks"),
        "{log}"
    );
    testbed.agent.settings.insert(
        "PLGW_WEBHOOK_NETWORKS".to_owned(),
        "127.0.0.1/32".to_owned(),
    );
    testbed.agent.stop();
    let received = webhook_receiver(listener, 2);
    testbed.agent.restart();
    let agent = &testbed.agent;
    agent.cli("endpoint create b/late --network net --address 10.0.0.131 --service shop/web --message please");
    let next = || {
        received
            .recv_timeout(Duration::from_secs(60))
            .expect("a delivery")
    };
    let (headers, body) = next();
    let message: Value = serde_json::from_str(&body).expect("JSON");
    // Events arrive in order, although the first attempts failed and the agent was restarted.
    assert_eq!(message["type"], "endpoint.requested", "{body}");
    assert_eq!(message["data"]["object"], "a/early");
    let header = |name: &str| {
        let found = headers.iter().find_map(|header| {
            let (key, value) = header.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        });
        found.expect("a header")
    };
    let signed = format!(
        "{}.{}.{body}",
        header("webhook-id"),
        header("webhook-timestamp")
    );
    let key = STANDARD
        .decode(secret.trim_start_matches("whsec_"))
        .expect("base64");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let tag = STANDARD.encode(ring::hmac::sign(&key, signed.as_bytes()));
    assert_eq!(header("webhook-signature"), format!("v1,{tag}"));
    let (_, body) = next();
    let message: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(message["data"]["object"], "b/late", "{body}");
    assert_eq!(message["data"]["message"], "please");
    wait::until_true("the deliveries to be recorded", || {
        let listed = agent.json("tenant webhook list shop");
        listed[0]["status"]["failures"] == 0 && listed[0]["status"]["delivered"].is_string()
    });
    // A change of another tenant's network is not delivered.
    agent.cli("network update b/net --label secret=1");
    agent.cli("connection approve b/late");
    let (_, body) = next();
    assert!(body.contains("endpoint.approved"), "{body}");
    // The secret is shown once.
    let listed = agent.cli("-o json tenant webhook list");
    assert!(!listed.contains("whsec_") && !agent.log().contains("whsec_"));
    agent.cli("tenant webhook delete shop/desk");
}

#[test]
fn agent_without_ca_bundle_starts_and_reports_it() {
    let mut testbed = Testbed::unconfigured();
    testbed.agent.stop();
    for (key, value) in [
        ("SSL_CERT_FILE", "/dev/null"),
        ("SSL_CERT_DIR", "/dev/null/none"),
    ] {
        testbed
            .agent
            .settings
            .insert(key.to_owned(), value.to_owned());
    }
    testbed.agent.restart();
    let agent = &testbed.agent;
    agent.cli("tenant create a");
    agent.cli("tenant webhook create a/hook --url https://1.1.1.1/");
    agent.cli("tenant token create a/t --role viewer");
    wait::until_true("the delivery error", || {
        let listed = agent.json("tenant webhook list a");
        let error = listed[0]["status"]["last_error"]
            .as_str()
            .map(str::to_owned);
        error.is_some_and(|error| error.contains("ask its operator"))
    });
    assert!(agent.log().contains("certificate authorities"));
}
