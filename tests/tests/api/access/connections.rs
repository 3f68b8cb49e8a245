//! A connection from its request to its end, with two tenants and an operator.

use std::path::PathBuf;

use serde_json::Value;
use tests::{
    net::{
        process::{fail, succeed},
        topology::{BACKENDS, ENDPOINT},
    },
    services::{nginx::Nginx, tls_fixture::TlsFixture},
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
        serde_json::from_str(&run_as(&consumer, "-o json endpoint show a/new")).expect("JSON");
    assert_eq!(shown["status"]["connection"]["state"], "Pending");
    assert!(!fetch());
    let list = run_as(&provider, "connection list shop/web");
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
    let approved = run_as(&provider, "connection approve a/new --reason welcome");
    assert!(approved.contains("token shop/desk"), "{approved}");
    assert!(fetch());
    let shown: Value =
        serde_json::from_str(&run_as(&consumer, "-o json endpoint show a/new")).expect("JSON");
    let connection = &shown["status"]["connection"];
    assert_eq!(connection["state"], "Approved");
    // The consumer is not shown which principal of the provider decided.
    assert_eq!(connection["decided_by"], "the provider");
    run_as(&provider, "connection reject a/new");
    assert!(!fetch());
    run_as(&provider, "connection approve a/new");
    assert!(fetch());
    run_as(&provider, "connection remove a/new");
    assert!(!fetch());
    let refusal = fail(&mut fixture.remote_cli(&provider, "connection approve a/new"));
    assert!(refusal.contains("Disconnected"), "{refusal}");
    run_as(&consumer, "endpoint delete a/new");

    // Each tenant's audit trail has its own side of the connection only.
    let history = |token: &PathBuf| run_as(token, "event list");
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
