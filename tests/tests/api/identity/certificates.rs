//! Client certificates: their CAs, identities and revocation lists.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use gateway::store::{Sqlite, Store as _, Write};
use serde_json::json;
use tests::{
    net::{namespace::Namespace, process::fail, wait},
    services::{
        agent::{Agent, binary},
        test_ca::{IssuedCertificate, TestCa},
        tls_fixture::{LISTEN, TlsFixture},
    },
};

use crate::json_of;

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
