//! Tenants as users: over TLS, with tokens, certificates and the tokens of other systems. What they may
//! not see does not exist.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tests::{
    net::{
        namespace::Namespace,
        process::{fail, succeed},
        topology::{BACKENDS, ENDPOINT},
        wait,
    },
    services::{
        agent::{Agent, binary},
        nginx::Nginx,
        oidc_provider::OidcProvider,
        test_ca::TestCa,
        tls_fixture::{LISTEN, TlsFixture, read_token},
    },
};

#[test]
fn connection_lifecycle_with_two_tenants_and_an_operator() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let agent = &fixture.testbed.agent;
    fixture.testbed.wait_for_backends();
    let _servers = BACKENDS.map(|address| Nginx::start(&fixture.testbed.provider, address));
    agent.cli("endpoint delete a/web");
    let consumer = fixture.create_token_file("a/ci", "consumer");
    let provider = fixture.create_token_file("shop/desk", "provider");
    let stranger = fixture.create_token_file("b/ci", "admin");
    let alias = agent.json("service show shop/web")["status"]["alias"].clone();
    let alias = alias.as_str().expect("an alias");
    let ask = |token: &PathBuf, line: &str| succeed(&mut fixture.remote_cli(token, line));
    let fetch = || {
        let mut curl = fixture
            .testbed
            .a
            .command_line(&format!("curl -sS -m 3 http://{ENDPOINT}/name"));
        curl.output().expect("curl").status.success()
    };

    // The request, which the provider sees.
    let create = format!(
        "endpoint create a/new --network net --address {ENDPOINT} --service {alias} --message hello"
    );
    ask(&consumer, &create);
    let shown: Value =
        serde_json::from_str(&ask(&consumer, "-o json endpoint show a/new")).expect("JSON");
    assert_eq!(shown["status"]["connection"]["state"], "Pending");
    assert!(!fetch());
    let list = ask(&provider, "connection list shop/web");
    assert!(list.contains("a/new") && list.contains("hello"), "{list}");

    // Nobody else decides, nor sees it.
    let refusal = fail(&mut fixture.remote_cli(&consumer, "connection approve a/new"));
    assert!(
        refusal.contains("endpoint a/new has no connection"),
        "{refusal}"
    );
    let refusal = fail(&mut fixture.remote_cli(&stranger, "endpoint show a/new"));
    assert!(refusal.contains("there is no tenant a"), "{refusal}");
    let refusal = fail(&mut fixture.remote_cli(&provider, "endpoint delete a/new"));
    assert!(refusal.contains("there is no tenant a"), "{refusal}");

    // Approval, revocation, approval again, and the end.
    let approved = ask(&provider, "connection approve a/new --reason welcome");
    assert!(approved.contains("token shop/desk"), "{approved}");
    assert!(fetch());
    let shown: Value =
        serde_json::from_str(&ask(&consumer, "-o json endpoint show a/new")).expect("JSON");
    let connection = &shown["status"]["connection"];
    assert_eq!(connection["state"], "Approved");
    // Who exactly it was is the provider's own business.
    assert_eq!(connection["decided_by"], "the provider");
    ask(&provider, "connection reject a/new");
    assert!(!fetch());
    ask(&provider, "connection approve a/new");
    assert!(fetch());
    ask(&provider, "connection remove a/new");
    assert!(!fetch());
    let refusal = fail(&mut fixture.remote_cli(&provider, "connection approve a/new"));
    assert!(refusal.contains("Disconnected"), "{refusal}");
    ask(&consumer, "endpoint delete a/new");

    // Everyone's own part of what happened.
    let history = |token: &PathBuf| ask(token, "event list");
    let consumers = history(&consumer);
    for word in [
        "requested",
        "approved",
        "rejected",
        "disconnected",
        "deleted",
        "the other side",
    ] {
        assert!(consumers.contains(word), "{word}:\n{consumers}");
    }
    assert!(!consumers.contains("shop"), "{consumers}");
    let providers = history(&provider);
    assert!(
        providers.contains("token shop/desk") && providers.contains("a/new"),
        "{providers}"
    );
    assert!(!providers.contains("token a/ci"), "{providers}");
    assert!(!history(&stranger).contains("a/new"));
    let operators = agent.cli("event list");
    assert!(operators.contains("token a/ci") && operators.contains("token shop/desk"));
}

/// What each operation needs of a tenant's user: the table that this test holds the program to.
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
        "create_endpoint" | "update_endpoint" | "delete_endpoint" => "endpoints",
        "create_service" | "update_service" | "delete_service" | "approve_connection"
        | "reject_connection" | "remove_connection" => "services",
        "create_token" | "delete_token" | "create_identity" | "delete_identity"
        | "create_webhook" | "delete_webhook" => "access",
        "create_tenant" | "update_tenant" | "delete_tenant" | "create_network"
        | "update_network" | "delete_network" | "show_status" | "list_flows" | "backup"
        | "restore" => "operate",
        unknown => panic!("operation {unknown} is new: say here who may use it"),
    }
}

fn has_permission(role: &str, needed: &str) -> bool {
    match needed {
        "nothing" => true,
        "anyone" => role != "nobody",
        "read" => ["viewer", "consumer", "provider", "admin", "operator"].contains(&role),
        "endpoints" => ["consumer", "admin", "operator"].contains(&role),
        "services" => ["provider", "admin", "operator"].contains(&role),
        "access" => ["admin", "operator"].contains(&role),
        "operate" => role == "operator",
        other => panic!("{other}"),
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
    let mut asked = 0;
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
            let mut ask = |token: Option<&str>, tenant: &str| -> (u16, Value) {
                let header = format!("authorization: Bearer {}", token.unwrap_or_default());
                let mut arguments = body.to_vec();
                if token.is_some() {
                    arguments.extend(["-H", &header]);
                }
                asked += 1;
                let (status, text) = fixture.curl(&method, &in_tenant(tenant), &arguments);
                (status, serde_json::from_str(&text).unwrap_or(Value::Null))
            };
            let open = has_permission("nobody", needed);
            assert_eq!(ask(None, "a").0 != 401, open, "{id} of nobody");
            assert_eq!(
                ask(Some("gwt_unknown"), "a").0 != 401,
                open,
                "{id} of a stranger"
            );
            for (role, token) in &tokens {
                let (status, answer) = ask(Some(token), "a");
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
                // Another's, and one that never was: no difference but the name that was asked for.
                let (status, other) = ask(Some(token), "shop");
                let (_, never) = ask(Some(token), "never");
                assert_eq!(status, 404, "{id} of {role}: {other}");
                let text = other.to_string().replace("shop", "never");
                assert_eq!(text, never.to_string(), "{id} of {role}");
            }
        }
    }
    assert!(asked > 300, "{asked}");
    // The operator may do all of it, but only on the socket.
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
fn revoked_or_expired_token_is_rejected_on_open_streams_too() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let agent = &fixture.testbed.agent;
    let path = fixture.create_token_file("a/stream", "viewer");
    let token = read_token(&path);
    assert_eq!(
        fixture.get_with_token(&token, "GET", "/v1/tenants/a").0,
        200
    );

    let mut command = fixture.remote_cli(&path, "-o json event list --follow");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command line");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    // It is known to follow when it shows what happens.
    let (sender, seen) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines {
            let _gone = sender.send(line.expect("a line"));
        }
    });
    let mut number = 0;
    let first = wait::until("an event", std::time::Duration::from_secs(20), || {
        number += 1;
        agent.cli(&format!(
            "endpoint create a/e{number} --network net --address 10.0.1.{number} --service shop/web"
        ));
        seen.recv_timeout(std::time::Duration::from_millis(200))
            .ok()
    });
    let first: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(
        (&first["kind"], &first["action"]),
        (&json!("endpoint"), &json!("requested"))
    );

    agent.cli("tenant token revoke a/stream");
    let (status, refusal) = fixture.get_with_token(&token, "GET", "/v1/tenants/a");
    assert_eq!(status, 401, "{refusal}");
    // The stream ends, and what happens afterwards is not on it.
    agent.cli("endpoint create a/late --network net --address 10.0.0.120 --service shop/web");
    reader.join().expect("the end of the stream");
    let rest: Vec<String> = seen.iter().collect();
    assert!(!rest.iter().any(|line| line.contains("a/late")), "{rest:?}");
    assert!(child.wait().expect("its end").success());

    let short = fixture.ca.directory().join("short");
    agent.cli(&format!(
        "tenant token create a/short --role viewer --expires-in 2s --output-file {}",
        short.display()
    ));
    let short = read_token(&short);
    assert_eq!(
        fixture.get_with_token(&short, "GET", "/v1/tenants/a").0,
        200
    );
    wait::until_true("the token's end", || {
        fixture.get_with_token(&short, "GET", "/v1/tenants/a").0 == 401
    });
    // Nowhere is a secret kept or shown.
    let listed = agent.cli("tenant token list -o json");
    assert!(
        listed.contains("short") && !listed.contains("gwt_"),
        "{listed}"
    );
    let store = fs::read(agent.state_directory().join("state.db")).expect("the store");
    assert!(!store.windows(4).any(|bytes| bytes == b"gwt_"));
    assert!(!agent.log().contains("gwt_"));
}

#[test]
fn users_of_two_identity_providers_work_together() {
    let mut issuers = Vec::new();
    let fixture = TlsFixture::start(|testbed, ca, agent| {
        issuers.push(OidcProvider::start(&testbed.host, ca, 8444));
        issuers.push(OidcProvider::start(&testbed.host, ca, 8445));
        let settings = format!(
            "{},audience=gateway {},audience=gateway",
            issuers[0].url, issuers[1].url
        );
        agent
            .settings
            .insert("PLGW_OIDC_ISSUERS".to_owned(), settings);
    });
    let agent = &fixture.testbed.agent;
    let [first, second] = [&issuers[0].url, &issuers[1].url];
    agent.cli(&format!(
        "tenant identity create a/ops --issuer {first} --claim groups --value ops --role consumer"
    ));
    agent.cli(&format!(
        "tenant identity create shop/boss --issuer {second} --value boss --role provider"
    ));
    let refusal = agent
        .cli_error("tenant identity create a/x --issuer https://elsewhere --value x --role viewer");
    assert!(
        refusal.contains("not an issuer that the gateway trusts"),
        "{refusal}"
    );

    let consumer =
        issuers[0].sign_token(json!({ "groups": ["dev", "ops"], "preferred_username": "kim" }));
    let provider = issuers[1].sign_token(json!({ "sub": "boss" }));
    let whoami = |token: &str| {
        let (status, text) = fixture.get_with_token(token, "GET", "/v1/whoami");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    assert_eq!(whoami(&consumer)["roles"], json!({ "a": "consumer" }));
    assert_eq!(
        whoami(&consumer)["name"],
        format!("oidc:{first}#somebody (kim)")
    );
    assert_eq!(whoami(&provider)["roles"], json!({ "shop": "provider" }));
    // What one system says counts for that system's identities only.
    let liar = issuers[0].sign_token(json!({ "sub": "boss" }));
    assert_eq!(whoami(&liar)["roles"], json!({}));
    assert_eq!(
        fixture.get_with_token(&liar, "GET", "/v1/tenants/shop").0,
        404
    );

    // What is not genuine, not for us, or too old.
    let none = {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = issuers[0].with_default_claims(json!({ "groups": ["ops"] }));
        format!("{}.{}.", part(json!({ "alg": "none" })), part(claims))
    };
    let secret = {
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        let key = jsonwebtoken::EncodingKey::from_secret(b"public");
        let claims = issuers[0].with_default_claims(json!({ "groups": ["ops"] }));
        jsonwebtoken::encode(&header, &claims, &key).expect("a token")
    };
    let mut forged = consumer.clone();
    forged.replace_range(forged.len() - 6.., "AAAAAA");
    for (what, token) in [
        (
            "audience",
            issuers[0].sign_token(json!({ "aud": "others", "groups": ["ops"] })),
        ),
        (
            "expiry",
            issuers[0].sign_token(json!({ "exp": 1_000_000_000, "groups": ["ops"] })),
        ),
        (
            "not yet",
            issuers[0].sign_token(json!({ "nbf": 4_000_000_000u64, "groups": ["ops"] })),
        ),
        (
            "other's key",
            issuers[1].sign_token(json!({ "iss": first, "groups": ["ops"] })),
        ),
        (
            "issuer",
            issuers[0].sign_token(json!({ "iss": "https://elsewhere", "groups": ["ops"] })),
        ),
        ("unsigned", none),
        ("symmetric", secret),
        ("forged", forged),
        ("no token", "a.b.c".to_owned()),
    ] {
        let (status, text) = fixture.get_with_token(&token, "GET", "/v1/whoami");
        assert_eq!(status, 401, "{what}: {text}");
    }

    // Another key, and the old one is worth nothing.
    issuers[0].rotate_key("second");
    let rotated = issuers[0].sign_token(json!({ "groups": ["ops"] }));
    wait::until_true("the new key to be known", || {
        fixture.get_with_token(&rotated, "GET", "/v1/whoami").0 == 200
    });
    let old = issuers[0].sign_token_with_key(0, json!({ "groups": ["ops"] }));
    assert_eq!(fixture.get_with_token(&old, "GET", "/v1/whoami").0, 401);
    // Taking the identity away takes effect at once.
    agent.cli("tenant identity delete a/ops");
    assert_eq!(whoami(&rotated)["roles"], json!({}));
}

#[test]
fn client_certificate_authenticates_like_a_token() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let agent = &fixture.testbed.agent;
    agent.cli(&format!(
        "tenant identity create a/build --issuer certificate --claim dns --value build --role viewer --authority {}",
        fixture.ca.certificate().display()
    ));
    let signed = fixture.ca.issue("build");
    let certificate_arguments = |signed: &tests::services::test_ca::IssuedCertificate| {
        [
            "--cert".to_owned(),
            signed.certificate.display().to_string(),
            "--key".to_owned(),
            signed.key.display().to_string(),
        ]
    };
    let ask = |signed: &tests::services::test_ca::IssuedCertificate, path: &str| {
        let words = certificate_arguments(signed);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        fixture.curl("GET", path, &words)
    };
    assert_eq!(ask(&signed, "/v1/tenants/a").0, 200);
    let (_, text) = ask(&signed, "/v1/whoami");
    assert!(
        text.contains("certificate sha256:") && text.contains("(build)"),
        "{text}"
    );
    assert_eq!(ask(&signed, "/v1/tenants/shop").0, 404);
    assert_eq!(ask(&fixture.ca.issue("other"), "/v1/tenants/a").0, 404);
    // One that another authority signed does not get as far as asking.
    let strangers = TestCa::new();
    let foreign = strangers.issue("build");
    let mut command = fixture.testbed.host.command("curl");
    command.args(["-sS", "-m", "20"]);
    command.arg("--cacert").arg(fixture.ca.certificate());
    command
        .args(certificate_arguments(&foreign))
        .arg(format!("https://{LISTEN}/v1/whoami"));
    let refusal = fail(&mut command);
    assert!(refusal.contains("alert"), "{refusal}");
    // The command line shows one as well.
    let mut command = fixture
        .testbed
        .host
        .command(&binary().display().to_string());
    command.args(["whoami", "--server", &format!("https://{LISTEN}"), "--ca"]);
    command.arg(fixture.ca.certificate());
    command.arg("--client-certificate").arg(&signed.certificate);
    command.arg("--client-key").arg(&signed.key);
    let shown = succeed(&mut command);
    assert!(shown.contains("viewer of a"), "{shown}");
}

#[test]
fn new_certificate_is_loaded_without_a_restart() {
    let mut fixture = TlsFixture::start(|_, _, _| {});
    let subject = |fixture: &TlsFixture| {
        let mut curl = fixture.testbed.host.command("curl");
        curl.args(["-sSv", "-m", "20", "--cacert"]);
        curl.arg(fixture.ca.certificate());
        curl.arg(format!("https://{LISTEN}/healthz"));
        let output = curl.output().expect("curl");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(subject(&fixture).contains("CN=gateway"));
    let old = fixture.ca.directory().join("gateway.pem");
    // A file that is none leaves the old one in use.
    let good = fs::read(&old).expect("a file");
    fs::write(&old, "nonsense").expect("a file");
    fixture.testbed.agent.send_sighup();
    wait::until_true("the refusal", || {
        fixture
            .testbed
            .agent
            .log()
            .contains("the old certificate stays in use")
    });
    assert!(subject(&fixture).contains("CN=gateway"));
    fs::write(&old, good).expect("a file");
    let new = fixture.ca.issue("renewed");
    fs::copy(&new.certificate, &old).expect("a copy");
    fs::copy(&new.key, fixture.ca.directory().join("gateway.key")).expect("a copy");
    fixture.testbed.agent.send_sighup();
    wait::until_true("the new certificate", || {
        subject(&fixture).contains("CN=renewed")
    });
}

#[test]
fn slow_and_broken_clients_do_not_block_others() {
    let fixture = TlsFixture::start(|_, _, _| {});
    // Connections that say nothing, and some that say nonsense.
    let held = fixture.testbed.host.run_in(|| {
        let mut held = Vec::new();
        for number in 0..300 {
            let mut stream = std::net::TcpStream::connect(LISTEN).expect("a connection");
            if number % 2 == 0 {
                use std::io::Write as _;
                stream
                    .write_all(b"GET / HTTP/1.1\r\n\r\n")
                    .expect("a write");
            }
            held.push(stream);
        }
        held
    });
    // From one address no more are taken; others are served.
    let words = ["--interface", "127.0.0.2"];
    assert_eq!(fixture.curl("GET", "/healthz", &words).0, 200);
    drop(held);
    wait::until_true("room for the first address again", || {
        let mut curl = fixture.testbed.host.command("curl");
        curl.args(["-sS", "-m", "5", "--cacert"])
            .arg(fixture.ca.certificate());
        let output = curl.arg(format!("https://{LISTEN}/healthz")).output();
        output.is_ok_and(|output| output.status.success())
    });
}

#[test]
fn listener_without_a_certificate_is_refused() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::prepare(&host);
    let mut command = agent.run_command();
    command.env("PLGW_LISTEN", LISTEN);
    let refusal = fail(&mut command);
    assert!(
        refusal.contains("needs tls_certificate and tls_key"),
        "{refusal}"
    );
    let mut command = agent.run_command();
    command.env("PLGW_LISTEN", LISTEN);
    command.env("PLGW_TLS_CERTIFICATE", "/nowhere.pem");
    command.env("PLGW_TLS_KEY", "/nowhere.key");
    let refusal = fail(&mut command);
    assert!(refusal.contains("could not read /nowhere.pem"), "{refusal}");
}

#[test]
fn agent_drops_unneeded_capabilities() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let status = fs::read_to_string(format!("/proc/{}/status", fixture.testbed.agent.pid()));
    let status = status.expect("its status");
    let field = |name: &str| {
        let mut lines = status.lines();
        let line = lines
            .find_map(|line| line.strip_prefix(name))
            .expect("a field");
        line.trim_start_matches(':').trim().to_owned()
    };
    // NET_ADMIN 12, NET_RAW 13, PERFMON 38, BPF 39 (linux/capability.h).
    let kept = 1u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let has = u64::from_str_radix(&field(set), 16).expect("a number");
        assert_eq!(has & !kept, 0, "{set}: {has:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    // All of its threads.
    let threads =
        fs::read_dir(format!("/proc/{}/task", fixture.testbed.agent.pid())).expect("threads");
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("a status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let has = u64::from_str_radix(effective.expect("a set").trim(), 16).expect("a number");
        assert_eq!(has & !kept, 0, "{thread:?}: {has:x}");
    }
    // What is secret is in no list of processes, and in no answer.
    let line = fs::read(format!("/proc/{}/cmdline", fixture.testbed.agent.pid())).expect("a line");
    assert!(!String::from_utf8_lossy(&line).contains("gwt_"));
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
    // Its own part, as it is.
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
    // An interface that another tenant has, and one that nobody has.
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
    // Its own approval is not its own to give: neither for an endpoint that is there, nor in one manifest
    // with the endpoint, nor after the provider ended the connection.
    let approve_itself = |name: &str, address: &str| {
        let text = format!(
            "endpoints: [{{tenant: a, name: {name}, network: net, addresses: [{address}], service: shop/web}}]
connections: [{{endpoint: a/{name}, state: Approved}}]"
        );
        fail(&mut apply(&admin, &text))
    };
    let refusal = approve_itself("more", "10.0.0.160");
    assert!(
        refusal.contains("is decided by the service's provider"),
        "{refusal}"
    );
    let refusal = approve_itself("another", "10.0.0.161");
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
    let refusal = approve_itself("more", "10.0.0.160");
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
    // One that waits, one that is approved, one that does not exist, of tenants with and without endpoints.
    fixture.testbed.agent.cli("connection approve b/web");
    let token = fixture.create_token_file("a/viewer", "viewer");
    let directory = tempfile::tempdir().expect("a directory");
    let stranger = "b/web";
    for state in ["Pending", "Approved", "Rejected", "Disconnected"] {
        let ask = |endpoint: &str| {
            let path = directory.path().join("m.yaml");
            let text = format!("connections: [{{endpoint: {endpoint}, state: {state}}}]");
            fs::write(&path, text).expect("a file");
            let line = format!("apply --dry-run -f {}", path.display());
            fail(&mut fixture.remote_cli(&token, &line)).replace(endpoint, "ENDPOINT")
        };
        let exists = ask(stranger);
        assert!(exists.contains("there is no endpoint"), "{exists}");
        for never in ["b/never", "shop/never", "never/never"] {
            assert_eq!(ask(never), exists, "{state}");
        }
    }
}
