//! Tokens of an OIDC issuer: keys, times, claims and the names of principals.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    net::wait,
    services::{oidc_provider::OidcProvider, tls_fixture::TlsFixture},
};

use crate::json_of;

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
