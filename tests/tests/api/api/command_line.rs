//! Errors and output formats of the command line, and access to its control socket.

use std::sync::Arc;

use tests::{
    net::{namespace::Namespace, topology::Testbed},
    services::agent::Agent,
};

#[test]
fn cli_errors_print_one_sentence_and_exit_with_status_1() {
    let testbed = Testbed::new();
    for (line, expected) in [
        ("tenant create a --networks 3", "tenant a exists already"),
        ("tenant delete nobody", "there is no tenant nobody"),
        ("network show a/none", "there is no network a/none"),
        (
            "network create b/more --interface gw-a",
            "gw-a is attached to another network",
        ),
        (
            "service create shop/two --network net --port 80 --nat 10.1.0.70",
            "source NAT addresses of service shop/web",
        ),
        (
            "service create shop/two --network a/net --port 80 --nat 10.1.2.0/30",
            "is of another tenant",
        ),
        (
            "service backend remove shop/web 10.1.0.99",
            "has no backend 10.1.0.99",
        ),
        (
            "service resource add shop/web default --port 80",
            "already has a resource default",
        ),
        (
            "service resource remove shop/web none",
            "has no resource none",
        ),
        ("service resource remove shop/web default", ""),
        (
            "endpoint create a/two --network net --address 10.0.0.101 --service shop/none",
            "there is no service shop/none",
        ),
        (
            "connection approve a/none",
            "endpoint a/none has no connection",
        ),
    ] {
        let output = tests::net::process::run(
            &mut testbed.agent.cli_command(line),
            std::time::Duration::from_secs(20),
        )
        .expect("the command line");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {text}");
        assert!(
            text.starts_with("plgw: ") && text.contains(expected),
            "{line}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        assert!(output.stdout.is_empty());
    }
    for line in [
        "tenant create Bad",
        "network create a",
        "endpoint create a/x",
        "nonsense",
        "service create shop/x --network net --port 0 --nat 10.1.2.0/30",
    ] {
        let output = tests::net::process::run(
            &mut testbed.agent.cli_command(line),
            std::time::Duration::from_secs(20),
        )
        .expect("the command line");
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
}

#[test]
fn tables_fit_100_columns_and_json_and_yaml_are_complete() {
    let testbed = Testbed::with_approved_connections();
    testbed
        .agent
        .cli("network create a/out --interface not-there");
    for line in [
        "tenant list",
        "tenant show a",
        "network list",
        "network show a/net",
        "network show a/out",
        "service list",
        "service show shop/web",
        "endpoint list",
        "endpoint show a/web",
        "connection list",
        "flow list",
        "status",
    ] {
        let text = testbed.agent.cli(line);
        for row in text.lines() {
            assert!(row.chars().count() <= 100, "{line}: {row:?}");
        }
        testbed.agent.json(line);
        assert!(!testbed.agent.cli(&format!("{line} -o yaml")).is_empty());
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            testbed
                .agent
                .cli(&format!("completions {shell}"))
                .contains("plgw")
        );
    }
    assert!(testbed.agent.cli("config check").contains("state_dir"));
}

#[test]
fn control_socket_is_restricted_to_root_and_its_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::start(&host);
    let mode = std::fs::metadata(agent.socket())
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let store = agent.state_directory().join("state.db");
    let mode = std::fs::metadata(store)
        .expect("a store")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
