//! Consumers of a service that was created again.

use std::net::SocketAddr;

use tests::{
    net::topology::{BACKENDS, ENDPOINT, NAT, Testbed},
    services::agent::Agent,
};

use crate::servers::{TcpServer, echo};

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

fn state(agent: &Agent, endpoint: &str) -> String {
    let shown = agent.json(&format!("endpoint show {endpoint}"));
    let state = shown["status"]["connection"]["state"].as_str();
    state.unwrap_or_default().to_owned()
}

/// Applies a manifest with these options, and returns the output, or the refusal.
fn apply(agent: &Agent, text: &str, options: &str) -> Result<String, String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("a file");
    let line = format!("apply -f {} {options}", file.path().display());
    let output = agent.cli_command(&line).output().expect("an output");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

#[test]
fn consumers_of_a_service_that_was_created_again_keep_name_and_address() {
    let testbed = Testbed::with_approved_connections();
    let agent = &testbed.agent;
    let _servers = BACKENDS.map(|backend| TcpServer::start(&testbed.provider, at(backend, 7_501)));
    for consumer in [&testbed.a, &testbed.b] {
        echo(consumer, at(ENDPOINT, 7_501)).expect("an echo");
    }
    let refusal = agent.cli_error("endpoint reconnect a/web");
    assert!(
        refusal.contains("only one that is Disconnected"),
        "{refusal}"
    );
    let old = agent.json("endpoint show a/web");
    agent.cli("service delete shop/web --force");
    assert_eq!(state(agent, "a/web"), "Disconnected");
    assert!(echo(&testbed.a, at(ENDPOINT, 7_501)).is_err());
    let refusal = agent.cli_error("endpoint reconnect a/web");
    assert!(
        refusal.contains("there is no service shop/web"),
        "{refusal}"
    );

    let [one, two] = BACKENDS;
    let create = |visibility: &str| {
        format!(
            "service create shop/web --network net --port * --port */udp --backend {one} \
             --backend {two} --nat {NAT} --visibility {visibility}"
        )
    };
    agent.cli(&create("b"));
    // The operator, who sees the service, learns the reason; a tenant does not.
    let refusal = agent.cli_error("endpoint reconnect a/web");
    assert!(
        refusal.contains("not visible to tenant a: add the tenant"),
        "{refusal}"
    );
    agent.cli("service update shop/web --visibility *");
    agent.cli("endpoint reconnect a/web --message again");
    assert_eq!(state(agent, "a/web"), "Pending");
    assert!(echo(&testbed.a, at(ENDPOINT, 7_501)).is_err());
    let listed = agent.cli("connection list shop/web");
    assert!(
        listed.contains("a/web") && listed.contains("again"),
        "{listed}"
    );
    agent.cli("connection approve a/web");
    testbed.wait_for_backends();
    echo(&testbed.a, at(ENDPOINT, 7_501)).expect("an echo");
    let new = agent.json("endpoint show a/web");
    assert_eq!(new["uid"], old["uid"]);
    let link = |endpoint: &serde_json::Value| endpoint["status"]["connection"]["link_id"].clone();
    assert_ne!(link(&new), link(&old));

    // A manifest asks again, too.
    let manifest = |address: &str| {
        format!(
            "endpoints: [{{tenant: b, name: web, network: net, addresses: [{address}], service: shop/web}}]"
        )
    };
    let done = apply(agent, &manifest(ENDPOINT), "").expect("a change");
    assert!(
        done.contains("~ endpoint b/web") && done.contains("Disconnected -> Pending"),
        "{done}"
    );
    agent.cli("connection approve b/web");
    echo(&testbed.b, at(ENDPOINT, 7_501)).expect("an echo");
    let done = apply(agent, &manifest(ENDPOINT), "").expect("no change");
    assert_eq!(done, "nothing to change\n");

    // Another address needs another approval, and is not taken by accident.
    let refusal = apply(agent, &manifest("10.0.0.101"), "").expect_err("a refusal");
    assert!(refusal.contains("--replace"), "{refusal}");
    echo(&testbed.b, at(ENDPOINT, 7_501)).expect("an echo");
    let done = apply(agent, &manifest("10.0.0.101"), "--replace").expect("a change");
    assert!(done.contains("10.0.0.100 -> 10.0.0.101"), "{done}");
    assert_eq!(state(agent, "b/web"), "Pending");
    agent.cli("connection approve b/web");
    echo(&testbed.b, at("10.0.0.101", 7_501)).expect("an echo");
    let events = agent.cli("event list --kind endpoint --action deleted");
    assert!(events.contains("b/web"), "{events}");
}
