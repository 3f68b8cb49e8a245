//! Limits and ends of event streams.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use tests::{
    net::wait,
    services::api_fixture::{ApiFixture, TlsClient, address},
};

use crate::run_serially;

#[test]
fn streams_are_limited_per_principal_and_tenant() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[
        ("PLGW_STREAMS_PER_PRINCIPAL", "3"),
        ("PLGW_STREAMS_PER_TENANT", "4"),
    ]);
    let [one, two] = ["a/one", "a/two"].map(|token| fixture.create_token(token, "viewer"));
    let other = fixture.create_token("b/other", "viewer");
    let config = fixture.tls_config(None);
    fixture.host.run_in(move || {
        let follow = |token: &str| {
            let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
            client
                .send_request("GET", "/v1/events?follow=true", token, "")
                .expect("a request");
            let answer = client.read_response_head().expect("an answer");
            (answer, client)
        };
        let mut streams = Vec::new();
        for (token, status) in [
            (&one, 200),
            (&one, 200),
            (&one, 200),
            (&one, 429),
            (&two, 200),
            (&two, 429),
            (&other, 200),
        ] {
            let (answer, client) = follow(token);
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(status == 429, answer.head.contains("retry-after: "));
            streams.push(client);
        }
        // The end of one stream makes room for another.
        streams.truncate(2);
        wait::until_true("room for another stream", || {
            let (answer, client) = follow(&one);
            streams.push(client);
            answer.status == 200
        });
    });
}

#[test]
fn stream_and_connection_close_when_the_credential_is_revoked() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[]);
    let ca = fixture.ca.certificate();
    fixture.agent.cli(&format!(
        "tenant identity create a/build --issuer certificate --claim dns --value build --authority {} \
         --role viewer",
        ca.display()
    ));
    let certificate = fixture.tls_config(Some(&fixture.ca.issue("build")));
    let config = fixture.tls_config(None);
    let revoked = fixture.create_token("a/revoked", "viewer");
    let follow = |config: &Arc<ClientConfig>, token: &str| {
        let (config, token) = (Arc::clone(config), token.to_owned());
        fixture.host.run_in(move || {
            let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
            client
                .send_request("GET", "/v1/events?follow=true", &token, "")
                .expect("a request");
            assert_eq!(client.read_response_head().expect("an answer").status, 200);
            client
        })
    };
    let at_once = Duration::from_secs(2) * wait::timeout_factor();
    let mut stream = follow(&config, &revoked);
    fixture.agent.cli("tenant token revoke a/revoked");
    let took = stream.wait_for_close().expect("a closed connection");
    assert!(took < at_once, "{took:?} after the revocation");
    // The stream ends when its principal loses its last role.
    let mut stream = follow(&certificate, "");
    fixture.agent.cli("tenant identity delete a/build");
    let took = stream.wait_for_close().expect("a closed connection");
    assert!(took < at_once, "{took:?} after the loss of the role");
    let to = fixture.ca.directory().join("short");
    fixture.agent.cli(&format!(
        "tenant token create a/short --role viewer --expires-in 3s --output-file {}",
        to.display()
    ));
    let created = Instant::now();
    let short = fs::read_to_string(to).expect("a token").trim().to_owned();
    let mut stream = follow(&config, &short);
    stream.wait_for_close().expect("a closed connection");
    let took = created.elapsed();
    assert!(
        took < Duration::from_secs(3) + at_once,
        "{took:?} after the expiry"
    );
}
