//! Access of tenants over TLS with tokens, client certificates and JWTs of OIDC issuers.
//!
//! An object that a caller may not see is indistinguishable from a missing one.

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
    let run_as = |token: &PathBuf, line: &str| succeed(&mut fixture.remote_cli(token, line));
    let fetch = || {
        let mut curl = fixture
            .testbed
            .a
            .command_line(&format!("curl -sS -m 3 http://{ENDPOINT}/name"));
        curl.output().expect("curl").status.success()
    };

    // The consumer requests a connection; the provider sees the request.
    let create = format!(
        "endpoint create a/new --network net --address {ENDPOINT} --service {alias} --message hello"
    );
    run_as(&consumer, &create);
    let shown: Value =
        serde_json::from_str(&ask(&consumer, "-o json endpoint show a/new")).expect("JSON");
    assert_eq!(shown["status"]["connection"]["state"], "Pending");
    assert!(!fetch());
    let list = ask(&provider, "connection list shop/web");
    assert!(list.contains("a/new") && list.contains("hello"), "{list}");

    // Neither the consumer nor another tenant can decide. The other tenant does not see the endpoint.
    let refusal = fail(&mut fixture.remote_cli(&consumer, "connection approve a/new"));
    assert!(
        refusal.contains("endpoint a/new has no connection"),
        "{refusal}"
    );
    let refusal = fail(&mut fixture.remote_cli(&stranger, "endpoint show a/new"));
    assert!(refusal.contains("there is no tenant a"), "{refusal}");
    let refusal = fail(&mut fixture.remote_cli(&provider, "endpoint delete a/new"));
    assert!(refusal.contains("there is no tenant a"), "{refusal}");

    // The provider approves, revokes, approves again and removes the connection.
    let approved = ask(&provider, "connection approve a/new --reason welcome");
    assert!(approved.contains("token shop/desk"), "{approved}");
    assert!(fetch());
    let shown: Value =
        serde_json::from_str(&ask(&consumer, "-o json endpoint show a/new")).expect("JSON");
    let connection = &shown["status"]["connection"];
    assert_eq!(connection["state"], "Approved");
    // The consumer is not shown which principal of the provider decided.
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

    // Each tenant's audit trail has its own side of the connection only.
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
        "create_endpoint" | "update_endpoint" | "delete_endpoint" => "endpoints",
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
    // The stream is open once it shows an event, so create endpoints until it does.
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
    // The stream ends and carries no later event.
    agent.cli("endpoint create a/late --network net --address 10.0.0.120 --service shop/web");
    reader.join().expect("the reader to finish");
    let rest: Vec<String> = seen.iter().collect();
    assert!(!rest.iter().any(|line| line.contains("a/late")), "{rest:?}");
    assert!(child.wait().expect("an exit status").success());

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
    wait::until_true("the token to expire", || {
        fixture.get_with_token(&short, "GET", "/v1/tenants/a").0 == 401
    });
    // Lists, the store and the log hold no secret.
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
    // An issuer's claims count for the identities of that issuer only.
    let wrong_issuer = issuers[0].sign_token(json!({ "sub": "boss" }));
    assert_eq!(whoami(&wrong_issuer)["roles"], json!({}));
    assert_eq!(
        fixture
            .get_with_token(&wrong_issuer, "GET", "/v1/tenants/shop")
            .0,
        404
    );

    // Tokens that are forged, for another audience, from another issuer, or not valid now are refused.
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
            "key of another issuer",
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

    // After a key rotation the new key is accepted and the old one refused.
    issuers[0].rotate_key("second");
    let rotated = issuers[0].sign_token(json!({ "groups": ["ops"] }));
    wait::until_true("the new key to be accepted", || {
        fixture.get_with_token(&rotated, "GET", "/v1/whoami").0 == 200
    });
    let old = issuers[0].sign_token_with_key(0, json!({ "groups": ["ops"] }));
    assert_eq!(fixture.get_with_token(&old, "GET", "/v1/whoami").0, 401);
    // The deletion of an identity takes effect at once.
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
    let get = |signed: &tests::services::test_ca::IssuedCertificate, path: &str| {
        let arguments = certificate_arguments(signed);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fixture.curl("GET", path, &arguments)
    };
    assert_eq!(get(&signed, "/v1/tenants/a").0, 200);
    let (_, text) = get(&signed, "/v1/whoami");
    assert!(
        text.contains("certificate sha256:") && text.contains("(build)"),
        "{text}"
    );
    assert_eq!(get(&signed, "/v1/tenants/shop").0, 404);
    assert_eq!(get(&fixture.ca.issue("other"), "/v1/tenants/a").0, 404);
    // The handshake fails with a certificate of an unknown CA.
    let unknown_ca = TestCa::new();
    let foreign = unknown_ca.issue("build");
    let mut command = fixture.testbed.host.command("curl");
    command.args(["-sS", "-m", "20"]);
    command.arg("--cacert").arg(fixture.ca.certificate());
    command
        .args(certificate_arguments(&foreign))
        .arg(format!("https://{LISTEN}/v1/whoami"));
    let refusal = fail(&mut command);
    assert!(refusal.contains("alert"), "{refusal}");
    // The command line authenticates with a client certificate, too.
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
    // An invalid file leaves the old certificate in use.
    let good = fs::read(&old).expect("a file");
    fs::write(&old, "not a certificate").expect("a file");
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
    // Half of the connections send nothing; the others send HTTP without TLS.
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
    // The first address has reached its bound on connections; another one is served.
    let other_address = ["--interface", "127.0.0.2"];
    assert_eq!(fixture.curl("GET", "/healthz", &other_address).0, 200);
    drop(held);
    wait::until_true("the first address to be served again", || {
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
    let status = status.expect("the agent's status");
    let field = |name: &str| {
        let mut lines = status.lines();
        let line = lines
            .find_map(|line| line.strip_prefix(name))
            .expect("a field");
        line.trim_start_matches(':').trim().to_owned()
    };
    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39 (linux/capability.h).
    let kept = 1u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let has = u64::from_str_radix(&field(set), 16).expect("a number");
        assert_eq!(has & !kept, 0, "{set}: {has:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    // Every thread has dropped them.
    let threads =
        fs::read_dir(format!("/proc/{}/task", fixture.testbed.agent.pid())).expect("threads");
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("a status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let has = u64::from_str_radix(effective.expect("a set").trim(), 16).expect("a number");
        assert_eq!(has & !kept, 0, "{thread:?}: {has:x}");
    }
    // The command line, which every process can read, holds no token.
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
