//! Client certificates and their CAs, tokens of OIDC issuers, and the outbound requests of webhooks.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gateway::store::{Sqlite, Store as _, Write};
use serde_json::{Value, json};
use tests::{
    net::{namespace::Namespace, process::fail, wait},
    services::{
        agent::{Agent, binary},
        oidc_provider::OidcProvider,
        test_ca::{IssuedCertificate, TestCa},
        tls_fixture::{LISTEN, TlsFixture},
    },
};

/// Starts a fixture that accepts client certificates of two CAs.
fn fixture_with_two_cas(configure: impl FnOnce(&mut Agent, &TestCa)) -> (TlsFixture, TestCa) {
    let second = TestCa::new();
    let fixture = TlsFixture::start(|_, first, agent| {
        let certificates = [first.certificate(), second.certificate()];
        let both: Vec<String> = certificates
            .iter()
            .map(|path| fs::read_to_string(path).expect("a certificate"))
            .collect();
        let path = first.directory().join("clients.pem");
        fs::write(&path, both.concat()).expect("a file");
        agent
            .settings
            .insert("PLGW_TLS_CLIENT_CA".to_owned(), path.display().to_string());
        configure(agent, first);
    });
    (fixture, second)
}

/// Returns curl's arguments for a client certificate.
fn curl_arguments(signed: &IssuedCertificate) -> [String; 4] {
    [
        "--cert".to_owned(),
        signed.certificate.display().to_string(),
        "--key".to_owned(),
        signed.key.display().to_string(),
    ]
}

/// Sends a GET request with a client certificate. Returns status and body.
fn request_with_certificate(
    fixture: &TlsFixture,
    signed: &IssuedCertificate,
    path: &str,
) -> (u16, String) {
    let arguments = curl_arguments(signed);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    fixture.curl("GET", path, &arguments)
}

/// Returns the JSON body of a 200 response.
fn json_of((status, text): (u16, String)) -> Value {
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Creates a viewer's identity for client certificates.
fn create_identity(agent: &Agent, name: &str, rest: &str) {
    agent.cli(&format!(
        "tenant identity create {name} --issuer certificate --role viewer {rest}"
    ));
}

/// Returns the option that names the CA of an identity.
fn ca_option(path: &Path) -> String {
    format!("--authority {}", path.display())
}

#[test]
fn certificate_of_another_ca_does_not_impersonate_an_identity() {
    let (fixture, second) = fixture_with_two_cas(|_, _| {});
    let agent = &fixture.testbed.agent;
    let refusal = agent.cli_error(
        "tenant identity create a/build --issuer certificate --claim dns --value build --role viewer",
    );
    assert!(
        refusal.contains("name the authority that must have issued it"),
        "{refusal}"
    );
    for (name, claim) in [("a/dns", "dns"), ("a/cn", "common_name")] {
        let ca = ca_option(&fixture.ca.certificate());
        create_identity(agent, name, &format!("--claim {claim} --value build {ca}"));
    }
    let (trusted, foreign) = (fixture.ca.issue("build"), second.issue("build"));
    assert_eq!(
        request_with_certificate(&fixture, &trusted, "/v1/tenants/a").0,
        200
    );
    assert_eq!(
        request_with_certificate(&fixture, &foreign, "/v1/tenants/a").0,
        404
    );
    let shown = json_of(request_with_certificate(&fixture, &foreign, "/v1/whoami"));
    assert_eq!(shown["roles"], json!({}));

    // An identity with a certificate's hash needs no CA, since no other certificate has that hash.
    let identity = shown["identity"].as_str().expect("an identity");
    let hash = identity.trim_start_matches("certificate sha256:");
    create_identity(agent, "a/pinned", &format!("--claim sha256 --value {hash}"));
    assert_eq!(
        request_with_certificate(&fixture, &foreign, "/v1/tenants/a").0,
        200
    );
    assert_eq!(
        request_with_certificate(&fixture, &second.issue("other"), "/v1/tenants/a").0,
        404
    );

    // A CA can be named by the hash of its key, but only one that the gateway accepts.
    let listed = agent.json("tenant identity list a");
    let of = |name: &str| {
        let mut listed = listed.as_array().into_iter().flatten();
        let found = listed.find(|identity| identity["name"] == name);
        found.expect("an identity")["authority"].clone()
    };
    let key = of("dns")["key_sha256"].clone();
    let key = key.as_str().expect("a hash");
    create_identity(
        agent,
        "a/hash",
        &format!("--value other --claim dns --authority {key}"),
    );
    assert_eq!(
        request_with_certificate(&fixture, &fixture.ca.issue("other"), "/v1/tenants/a").0,
        200
    );
    let stranger = TestCa::new();
    let refusal = agent.cli_error(&format!(
        "tenant identity create a/x --issuer certificate --claim dns --value x --role viewer {}",
        ca_option(&stranger.certificate())
    ));
    assert!(
        refusal.contains("accepts no certificates of this authority"),
        "{refusal}"
    );
    // The hash of the key is exported and logged.
    assert!(agent.cli("export").contains(key));
    assert!(agent.log().contains(&format!("key_sha256={key}")));
}

#[test]
fn identity_without_a_ca_matches_no_client_and_is_logged_at_startup() {
    let mut fixture = TlsFixture::start(|_, _, _| {});
    let signed = fixture.ca.issue("build");
    fixture.testbed.agent.stop();
    let path = fixture.testbed.agent.state_directory().join("state.db");
    let mut store = Sqlite::open(&path).expect("the store");
    let value = json!({
        "name": "old", "uid": "00000000-0000-4000-8000-000000000000",
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        "issuer": "certificate", "claim": "dns", "value": "build", "role": "admin",
    });
    store
        .commit(&[Write {
            key: "identities/a/old".to_owned(),
            expected: 0,
            value: Some(value.to_string()),
        }])
        .expect("a write");
    drop(store);
    fixture.testbed.agent.restart();
    assert_eq!(
        request_with_certificate(&fixture, &signed, "/v1/tenants/a").0,
        404
    );
    let log = fixture.testbed.agent.log();
    assert!(
        log.contains("identity a/old names no authority, so no certificate matches it"),
        "{log}"
    );
}

#[test]
fn configuration_check_shows_certificate_authorities() {
    let ca = TestCa::new();
    let server = ca.issue("gateway");
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::prepare(&host);
    let mut command = agent.cli_command("config check");
    command
        .env("PLGW_LISTEN", LISTEN)
        .env("PLGW_TLS_CERTIFICATE", &server.certificate)
        .env("PLGW_TLS_KEY", &server.key)
        .env("PLGW_TLS_CLIENT_CA", ca.certificate());
    let shown = tests::net::process::succeed(&mut command);
    assert!(
        shown.contains("client authority: subject=\"CN=tests\" key_sha256="),
        "{shown}"
    );
    command.env("PLGW_TLS_CLIENT_CA", &server.key);
    let refusal = fail(&mut command);
    assert!(refusal.contains("contains no certificate"), "{refusal}");
}

#[test]
fn revoked_certificate_is_rejected_after_a_reload_on_open_streams_too() {
    let mut fixture = TlsFixture::start(|_, ca, agent| {
        let list = ca.write_crl(&[]).display().to_string();
        agent
            .settings
            .insert("PLGW_TLS_CLIENT_CRL".to_owned(), list);
    });
    let agent = &fixture.testbed.agent;
    let ca = ca_option(&fixture.ca.certificate());
    for name in ["build", "stays"] {
        create_identity(
            agent,
            &format!("a/{name}"),
            &format!("--claim dns --value {name} {ca}"),
        );
    }
    let (revoked, stays) = (fixture.ca.issue("build"), fixture.ca.issue("stays"));
    assert_eq!(
        request_with_certificate(&fixture, &revoked, "/v1/tenants/a").0,
        200
    );

    let mut command = fixture
        .testbed
        .host
        .command(&binary().display().to_string());
    command.args(["-o", "json", "event", "list", "--follow"]);
    command.args(["--server", &format!("https://{LISTEN}"), "--ca"]);
    command.arg(fixture.ca.certificate());
    command
        .arg("--client-certificate")
        .arg(&revoked.certificate);
    command.arg("--client-key").arg(&revoked.key);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (sender, seen) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines {
            let _gone = sender.send(line);
        }
    });
    // The stream is open once it shows an event, so create endpoints until it does.
    let mut number = 0;
    wait::until("an event", Duration::from_secs(20), || {
        number += 1;
        agent.cli(&format!(
            "endpoint create a/e{number} --network net --address 10.0.1.{number} --service shop/web"
        ));
        seen.recv_timeout(Duration::from_millis(200)).ok().map(drop)
    });

    let _list = fixture.ca.write_crl(&[&revoked]);
    fixture.testbed.agent.send_sighup();
    wait::until("the stream to end", Duration::from_secs(60), || {
        reader.is_finished().then_some(())
    });
    child.wait().expect("an exit status");
    // A handshake with the revoked certificate fails. Another certificate stays valid.
    let mut command = fixture.testbed.host.command("curl");
    command.args(["-sS", "-m", "20", "--cacert"]);
    command.arg(fixture.ca.certificate());
    command
        .args(curl_arguments(&revoked))
        .arg(format!("https://{LISTEN}/v1/whoami"));
    let refusal = fail(&mut command);
    assert!(refusal.contains("alert"), "{refusal}");
    assert_eq!(
        request_with_certificate(&fixture, &stays, "/v1/tenants/a").0,
        200
    );
}

/// Starts a fixture with an OIDC issuer whose group `ops` is admin of tenant a.
fn fixture_with_oidc_provider() -> (TlsFixture, OidcProvider) {
    let mut issuer = None;
    let fixture = TlsFixture::start(|testbed, ca, agent| {
        let started = OidcProvider::start(&testbed.host, ca, 8444);
        let settings = format!("{},audience=gateway", started.url);
        agent
            .settings
            .insert("PLGW_OIDC_ISSUERS".to_owned(), settings);
        issuer = Some(started);
    });
    let issuer = issuer.expect("an issuer");
    fixture.testbed.agent.cli(&format!(
        "tenant identity create a/ops --issuer {} --claim groups --value ops --role admin",
        issuer.url
    ));
    (fixture, issuer)
}

#[test]
fn slow_oidc_provider_and_unknown_keys_do_not_delay_known_keys() {
    /// Less than the timeout of a key request to an issuer that does not respond.
    const AT_ONCE: Duration = Duration::from_secs(4);
    let (fixture, mut issuer) = fixture_with_oidc_provider();
    let known = issuer.sign_token(json!({ "groups": ["ops"] }));
    assert_eq!(
        fixture.get_with_token(&known, "GET", "/v1/tenants/a").0,
        200
    );
    let accepted = issuer.stop_answering(&fixture.testbed.host);
    // Malformed tokens cause no key request to the issuer.
    let whole = issuer.forge_token("unknown", json!({}));
    let (unsigned, _) = whole.rsplit_once('.').expect("three parts");
    let nameless = {
        let mut parts = whole.split('.');
        parts.next();
        let rest: Vec<&str> = parts.collect();
        // {"alg":"ES256"}
        format!("eyJhbGciOiJFUzI1NiJ9.{}", rest.join("."))
    };
    for garbage in [unsigned, &format!("{unsigned}."), &nameless, "a.b.c"] {
        assert_eq!(fixture.get_with_token(garbage, "GET", "/v1/whoami").0, 401);
    }
    assert!(accepted.try_recv().is_err());

    let fixture = Arc::new(fixture);
    let answered = Arc::new(AtomicUsize::new(0));
    let send_unknown = |number: usize| {
        let token = issuer.forge_token(&format!("unknown-{number}"), json!({}));
        let (fixture, answered) = (Arc::clone(&fixture), Arc::clone(&answered));
        std::thread::spawn(move || {
            assert_eq!(fixture.get_with_token(&token, "GET", "/v1/whoami").0, 401);
            answered.fetch_add(1, Ordering::Relaxed);
        })
    };
    // The first tokens may arrive within the minimum interval after the last key request. A request is pending once
    // the issuer has a connection.
    let mut unknown = Vec::new();
    let _connection = wait::until(
        "a key request to the issuer",
        wait::DEFAULT_TIMEOUT * 2,
        || {
            unknown.push(send_unknown(unknown.len()));
            accepted.recv_timeout(Duration::from_millis(500)).ok()
        },
    );
    let first = unknown.len();
    unknown.extend((first..first + 12).map(send_unknown));
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(
            fixture.get_with_token(&known, "GET", "/v1/tenants/a").0,
            200
        );
    }
    let took = start.elapsed();
    assert!(took < AT_ONCE * wait::timeout_factor(), "{took:?}");
    let count = unknown.len();
    for thread in unknown {
        thread.join().expect("an answer");
    }
    assert_eq!(answered.load(Ordering::Relaxed), count);
    // One key request serves all tokens that wait for it. The next one starts at least five seconds after its end.
    let more = accepted.try_iter().count();
    let allowed = start.elapsed().as_secs() / 5;
    assert!(
        more as u64 <= allowed,
        "{more} more key requests, {allowed} allowed"
    );
}

#[test]
fn token_with_invalid_times_or_type_is_refused() {
    let (fixture, issuer) = fixture_with_oidc_provider();
    let status = |claims: Value| {
        let token = issuer.sign_token(claims);
        fixture.get_with_token(&token, "GET", "/v1/whoami").0
    };
    assert_eq!(status(json!({})), 200);
    for wrong in [
        json!({ "exp": 1e300 }),
        json!({ "exp": 1e18 }),
        json!({ "exp": u64::MAX }),
        json!({ "exp": 4_000_000_000u64 }),
        json!({ "exp": "4000000000" }),
        json!({ "nbf": 1e300 }),
        json!({ "iat": "now" }),
        json!({ "sub": 7 }),
    ] {
        assert_eq!(status(wrong.clone()), 401, "{wrong}");
    }
    // An email address that the issuer has not verified matches no identity.
    fixture.testbed.agent.cli(&format!(
        "tenant identity create b/kim --issuer {} --claim email --value kim@b.example --role viewer",
        issuer.url
    ));
    let roles = |verified: Value| {
        let claims = json!({ "email": "kim@b.example", "email_verified": verified });
        let token = issuer.sign_token(claims);
        json_of(fixture.get_with_token(&token, "GET", "/v1/whoami"))["roles"].clone()
    };
    assert_eq!(roles(json!(true)), json!({ "b": "viewer" }));
    assert_eq!(roles(json!(false)), json!({}));
    assert_eq!(roles(json!(null)), json!({}));
}

#[test]
fn principals_with_equal_names_stay_distinct() {
    let (fixture, issuer) = fixture_with_oidc_provider();
    let token = |subject: &str| {
        issuer.sign_token(json!({ "groups": ["ops"], "sub": subject, "preferred_username": "kim" }))
    };
    let (one, two) = (token("u1"), token("u2"));
    let name = |token: &str| {
        json_of(fixture.get_with_token(token, "GET", "/v1/whoami"))["name"]
            .as_str()
            .expect("a name")
            .to_owned()
    };
    assert_eq!(name(&one), format!("oidc:{}#u1 (kim)", issuer.url));
    assert_eq!(name(&two), format!("oidc:{}#u2 (kim)", issuer.url));
    // Idempotency keys are separate for each principal.
    let create = |token: &str, endpoint: &str, address: &str| {
        let header = format!("authorization: Bearer {token}");
        let body = json!({
            "name": endpoint, "network": "net", "addresses": [address], "service": "shop/web",
        });
        let body = body.to_string();
        let arguments = [
            "-H",
            &header,
            "-H",
            "idempotency-key: k",
            "-H",
            "content-type: application/json",
            "-d",
            &body,
        ];
        fixture.curl("POST", "/v1/tenants/a/endpoints", &arguments)
    };
    let first = create(&one, "first", "10.0.0.71");
    assert_eq!(first.0, 201, "{}", first.1);
    let made = create(&two, "second", "10.0.0.72");
    assert_eq!(made.0, 201, "{}", made.1);
    let repeated = create(&one, "first", "10.0.0.71");
    assert_eq!(repeated.0, 201, "{}", repeated.1);
    let uid = |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["uid"].clone();
    assert_eq!(uid(&repeated.1), uid(&first.1));
    let events = fixture.testbed.agent.cli("-o json event list");
    assert!(
        events.contains("#u1 (kim)") && events.contains("#u2 (kim)"),
        "{events}"
    );

    // A token that is created again under its old name has another identity.
    let identity = |token: &str| json_of(fixture.get_with_token(token, "GET", "/v1/whoami"));
    let first =
        tests::services::tls_fixture::read_token(&fixture.create_token_file("a/ci", "viewer"));
    let before = identity(&first)["identity"].clone();
    fixture.testbed.agent.cli("tenant token revoke a/ci");
    fs::remove_file(fixture.ca.directory().join("a-ci")).expect("the old file");
    let second =
        tests::services::tls_fixture::read_token(&fixture.create_token_file("a/ci", "viewer"));
    assert_ne!(identity(&second)["identity"], before);
}

/// Starts a server that answers every request with 204. Returns its number of connections.
fn count_connections(listener: TcpListener) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut buffer = [0; 4_096];
            let _read = stream.read(&mut buffer);
            let _gone = stream.write_all(
                b"HTTP/1.1 204 Thanks\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            );
        }
    });
    count
}

#[test]
fn webhooks_do_not_reach_the_host_or_a_proxy_and_hide_the_failure_cause() {
    // Global addresses. The namespaces have no route out of the testbed.
    const OWN: &str = "1.2.3.4";
    const OTHER: &str = "1.2.3.5";
    let mut fixture = TlsFixture::start(|testbed, _, agent| {
        testbed.host.ip(&format!("address add {OWN}/24 dev gw-p"));
        testbed
            .provider
            .ip(&format!("address add {OTHER}/24 dev eth0"));
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            agent
                .settings
                .insert(name.to_owned(), "http://127.0.0.1:3128".to_owned());
        }
    });
    let bind = |namespace: &Namespace, address: &'static str| {
        let listener = namespace.run_in(move || TcpListener::bind(address));
        count_connections(listener.expect("a listener"))
    };
    let proxy = bind(&fixture.testbed.host, "127.0.0.1:3128");
    let own = bind(&fixture.testbed.host, "1.2.3.4:8080");
    let other = bind(&fixture.testbed.provider, "1.2.3.5:8080");
    // An open port of a server that does not speak HTTP.
    let silent = fixture
        .testbed
        .provider
        .run_in(|| TcpListener::bind("1.2.3.5:8081"));
    let silent = silent.expect("a listener");
    std::thread::spawn(move || {
        for mut stream in silent.incoming().flatten() {
            let _gone = stream.write_all(b"+OK ready\r\n");
        }
    });
    let agent = &fixture.testbed.agent;
    for (name, url) in [
        ("own", "http://1.2.3.4:8080/"),
        ("mapped", "http://[::ffff:1.2.3.4]:8080/"),
        ("name", "http://localhost:8080/"),
        ("none", "http://nowhere.invalid:8080/"),
        ("closed", "http://1.2.3.5:8082/"),
        ("silent", "http://1.2.3.5:8081/"),
        ("other", "http://1.2.3.5:8080/"),
    ] {
        agent.cli(&format!("tenant webhook create a/{name} --url {url}"));
    }
    let refusal = agent.cli_error("tenant webhook create a/ssh --url http://1.2.3.5:22/");
    assert!(
        refusal.contains("port 443, or a port above 1023"),
        "{refusal}"
    );
    agent.cli("endpoint create a/notified --network net --address 10.0.0.99 --service shop/web");
    let status = |name: &str| {
        let listed = agent.json("tenant webhook list a");
        let mut listed = listed.as_array().cloned().unwrap_or_default().into_iter();
        let found = listed.find(|webhook| webhook["name"] == name);
        found.expect("a webhook")["status"].clone()
    };
    wait::until_true("the allowed delivery", || {
        other.load(Ordering::Relaxed) > 0 && status("other")["last_error"].is_null()
    });
    let errors: Vec<String> = ["own", "mapped", "name", "none", "closed", "silent"]
        .into_iter()
        .map(|name| {
            wait::until(name, Duration::from_secs(60), || {
                status(name)["last_error"].as_str().map(str::to_owned)
            })
        })
        .collect();
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    assert!(!errors[0].contains("1.2.3"), "{}", errors[0]);
    assert_eq!(own.load(Ordering::Relaxed), 0, "connections to the gateway");
    assert_eq!(proxy.load(Ordering::Relaxed), 0, "connections to the proxy");
    assert!(other.load(Ordering::Relaxed) > 0);
    // The operator's log has the cause.
    let log = agent.log();
    assert!(
        log.contains("webhook=a/own reason=unreachable: no webhook may be at 1.2.3.4"),
        "{log}"
    );
    // An allowed network does not open the gateway's own addresses in it.
    fixture.testbed.agent.stop();
    fixture
        .testbed
        .agent
        .settings
        .insert("PLGW_WEBHOOK_NETWORKS".to_owned(), "1.2.3.0/24".to_owned());
    fixture.testbed.agent.restart();
    let agent = &fixture.testbed.agent;
    wait::until("another attempt", Duration::from_secs(60), || {
        let listed = agent.json("tenant webhook list a");
        let listed = listed.as_array().cloned().unwrap_or_default();
        let own = listed.iter().find(|webhook| webhook["name"] == "own");
        (own?["status"]["failures"].as_u64()? > 0).then_some(())
    });
    assert_eq!(own.load(Ordering::Relaxed), 0, "connections to the gateway");
}
