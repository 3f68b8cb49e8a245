//! Tests of the files in `examples/`, used as their first lines instruct.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use clap::Args as _;
use gateway::config::{Config, Settings};
use serde_json::Value;
use tests::{
    net::{
        namespace::Namespace,
        process::{run, succeed},
        wait,
    },
    services::{
        agent::{Agent, binary},
        nginx::Nginx,
    },
};

/// Returns the path of an example.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// The hosts that the examples assume: a gateway with interfaces `eth1` and `eth2`, a consumer and a provider.
struct Hosts {
    // Dropped first: the agent must not see its interfaces disappear.
    agent: Agent,
    _gateway: Arc<Namespace>,
    consumer: Namespace,
    provider: Namespace,
}

impl Hosts {
    #[track_caller]
    fn new() -> Self {
        let gateway = Arc::new(Namespace::new("gw"));
        let (consumer, provider) = (Namespace::new("c"), Namespace::new("p"));
        gateway.connect("eth1", &consumer);
        gateway.connect("eth2", &provider);
        // Health checks come from the host's own address in the provider's network.
        gateway.ip("address add 10.1.0.1/24 dev eth2");
        consumer.ip("address add 10.0.0.5/24 dev eth0");
        for backend in ["10.1.0.10", "10.1.0.11"] {
            provider.ip(&format!("address add {backend}/24 dev eth0"));
        }
        let agent = Agent::start(&gateway);
        Self {
            agent,
            _gateway: gateway,
            consumer,
            provider,
        }
    }

    /// Starts a backend that passes the manifest's health check.
    #[track_caller]
    fn backend(&self, address: &str) -> Nginx {
        let server = Nginx::start(&self.provider, address);
        fs::write(server.root().join("healthz"), "ok\n").expect("a file");
        server
    }

    /// Waits until every backend of the service has the field set to true.
    #[track_caller]
    fn wait_for_backends(&self, field: &str, count: usize) {
        wait::until_true(&format!("the backends to be {field}"), || {
            let service = self.agent.json("service show shop/web");
            let backends = service["status"]["backends"].as_array();
            let is_set = |backend: &&Value| backend[field] == true;
            backends.is_some_and(|all| all.iter().filter(is_set).count() == count)
        });
    }

    /// Fetches the name of a backend through the endpoint.
    #[track_caller]
    fn fetch(&self) -> String {
        let mut curl = self
            .consumer
            .command_line("curl -sSf -m 10 http://10.0.0.100/name");
        succeed(&mut curl).trim().to_owned()
    }
}

#[test]
fn the_manifest_is_applied_and_carries_traffic() {
    let hosts = Hosts::new();
    let agent = &hosts.agent;
    let _servers = ["10.1.0.10", "10.1.0.11"].map(|address| hosts.backend(address));
    let apply = format!("apply -f {}", example("manifest.yaml").display());

    let shown = agent.cli(&format!("{apply} --dry-run"));
    for line in [
        "+ tenant shop",
        "+ network blue/net",
        "+ service shop/web",
        "+ endpoint blue/web",
    ] {
        assert!(shown.contains(line), "{line} is missing:\n{shown}");
    }
    assert!(shown.ends_with("nothing was changed\n"), "{shown}");
    assert_eq!(agent.json("tenant list"), Value::Array(Vec::new()));

    agent.cli(&apply);
    assert_eq!(agent.cli(&apply), "nothing to change\n");
    let endpoint = agent.json("endpoint show blue/web");
    assert_eq!(endpoint["status"]["connection"]["state"], "Approved");
    assert_eq!(endpoint["labels"]["cost-centre"], "4711");
    let service = agent.json("service show shop/web");
    assert_eq!(service["health_check"]["check"], "http");
    assert_eq!(service["labels"]["tier"], "production");

    hosts.wait_for_backends("reachable", 2);
    hosts.wait_for_backends("healthy", 2);
    let name = hosts.fetch();
    assert!(["10.1.0.10", "10.1.0.11"].contains(&&*name), "{name}");
}

#[test]
fn the_api_script_creates_and_approves_a_connection() {
    let hosts = Hosts::new();
    let agent = &hosts.agent;
    let _server = hosts.backend("10.1.0.10");
    let mut script = Command::new(example("api.sh"));
    script.arg(agent.socket()).args(["eth1", "eth2"]);

    // The second run finds every object in place and prints the same.
    for _ in 0..2 {
        let printed = succeed(&mut script);
        for text in [
            "created: /v1/tenants/shop",
            "created: /v1/tenants/blue/endpoints/web",
            ": Approved, approved by api.sh",
            "\"established_flows\"",
            "approved endpoint blue/web by operator",
        ] {
            assert!(printed.contains(text), "{text:?} is missing:\n{printed}");
        }
    }
    let connection = &agent.json("endpoint show blue/web")["status"]["connection"];
    assert_eq!(connection["state"], "Approved");
    assert_eq!(connection["reason"], "approved by api.sh");
    let service = agent.json("service show shop/web");
    assert_eq!(service["visibility"], serde_json::json!(["blue"]));

    hosts.wait_for_backends("reachable", 1);
    assert_eq!(hosts.fetch(), "10.1.0.10");
}

#[test]
fn the_api_script_fails_with_the_problem() {
    let hosts = Hosts::new();
    // Interface eth2 is attached to another network.
    hosts.agent.cli("tenant create other");
    hosts.agent.cli("network create other/net --interface eth2");
    let mut script = Command::new(example("api.sh"));
    script.arg(hosts.agent.socket());
    let output = run(&mut script, Duration::from_secs(60)).expect("the script to end");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("409") && text.contains("\"detail\""),
        "{text}"
    );
}

/// Returns the lines of the configuration file that hold a key, without the comment sign: key, and line.
fn keys(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
    lines
        .filter_map(|line| {
            let (key, _) = line.split_once(" = ")?;
            let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            is_key.then_some((key, line))
        })
        .collect()
}

/// Returns true if a key's line has an example value, which it has if the key has no default.
fn is_example(line: &str) -> bool {
    line.ends_with("  # example")
}

/// Runs `config check` on a configuration file with the lines. Returns its output and the configuration.
#[track_caller]
fn check<'a>(lines: impl Iterator<Item = &'a str>) -> (String, Config) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("plgw.toml");
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    fs::write(&path, text).expect("a file");
    let mut command = Command::new(binary());
    command.args(["config", "check", "--config"]).arg(&path);
    let config = Config::load(Some(&path), Settings::default()).expect("a configuration");
    (succeed(&mut command), config)
}

#[test]
fn the_configuration_file_shows_every_key_with_its_default() {
    let text = fs::read_to_string(example("plgw.toml")).expect("the file");
    let keys = keys(&text);

    // The file as installed changes no default.
    let nothing = check(std::iter::empty());
    assert_eq!(check(text.lines()), nothing);
    // With the defaults uncommented, it changes none either.
    let defaults = keys.iter().map(|(_, line)| *line);
    assert_eq!(check(defaults.filter(|line| !is_example(line))), nothing);

    // The file has every key exactly once.
    let command = Settings::augment_args(clap::Command::new("plgw"));
    let arguments = command.get_arguments();
    let known: Vec<String> = arguments
        .map(|argument| argument.get_id().to_string())
        .collect();
    let shown: BTreeSet<&str> = keys.iter().map(|(key, _)| *key).collect();
    assert_eq!(shown, known.iter().map(String::as_str).collect());
    assert_eq!(keys.len(), shown.len());
}

#[test]
fn the_configuration_file_shows_examples_that_are_accepted() {
    let text = fs::read_to_string(example("plgw.toml")).expect("the file");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("plgw.toml");
    let everything: String = keys(&text)
        .iter()
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    fs::write(&path, everything).expect("a file");
    // `config check` would read the files that the examples name, so only the file itself is loaded.
    let config = Config::load(Some(&path), Settings::default()).expect("a configuration");
    let tls = config.tls.expect("a listener");
    assert!(tls.client_ca.is_some() && tls.client_crl.is_some());
    assert_eq!(config.oidc_issuers.len(), 1);
    assert_eq!(config.webhook_networks.len(), 1);
}
