//! Conformance of the running API to its OpenAPI document, checked by schemathesis.

use std::{env, fs, path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use tests::{
    net::{namespace::Namespace, process::run},
    services::{agent::Agent, unix_proxy},
};

/// Returns the path at which `cargo xtask setup` installs schemathesis.
fn schemathesis() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = workspace.join("../target/schemathesis/bin/schemathesis");
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask setup`, or `cargo xtask test`",
        path.display()
    );
    path
}

#[test]
fn api_conforms_to_its_openapi_document() {
    // The namespace has no route out of it, so a generated webhook reaches nothing.
    let host = Arc::new(Namespace::new("gw"));
    host.ip("link set lo up");
    let far = Namespace::new("far");
    host.connect("net0", &far);
    let mut agent = Agent::prepare(&host);
    agent
        .settings
        .insert("PLGW_LOG".to_owned(), "warn".to_owned());
    agent.restart();
    // Objects for the generated requests to find.
    agent.cli("tenant create a");
    agent.cli("network create a/net --interface net0 --prefix 10.0.0.0/24 --pool 10.0.0.0/25");
    agent.cli("service create a/web --network net --port 80 --backend 10.0.0.200 --nat 10.0.0.210 --visibility * --auto-approval *");
    agent.cli("endpoint create a/web --network net --service a/web");
    let socket = agent.socket();
    let port = host.run_in(move || unix_proxy::listen(&socket));
    let seconds = env::var("PLGW_TEST_SCHEMATHESIS_SECONDS").unwrap_or_else(|_| "45".to_owned());
    let mut command = host.command(&schemathesis().display().to_string());
    let directory = tempfile::tempdir().expect("a directory");
    command.current_dir(directory.path());
    // A request that matches the schema may get 422 for a rule that no schema expresses, such as an interface in use
    // or an address that no host can have.
    let settings = "[checks.positive_data_acceptance]\nexpected-statuses = [\"2xx\", \"404\", \"409\", \"422\"]\n";
    fs::write(directory.path().join("schemathesis.toml"), settings).expect("a file");
    // Every caller of the control socket is the operator, so the document must not require tokens. `access` tests
    // roles.
    let mut document: Value =
        serde_json::from_str(&agent.http("GET", "/openapi.json", None).1).expect("JSON");
    let document = document.as_object_mut().expect("an object");
    document
        .remove("security")
        .expect("a document that requires tokens");
    let document = serde_json::to_string(document).expect("JSON");
    fs::write(directory.path().join("openapi.json"), document).expect("a file");
    command.args([
        "run",
        "openapi.json",
        "--url",
        &format!("http://127.0.0.1:{port}"),
    ]);
    command.args(["--max-time", &seconds, "--seed", "1", "--workers", "2"]);
    command.args(["--checks", "all", "--continue-on-failure"]);
    // `follow` makes an endless stream.
    command.args(["--exclude-operation-id", "list_events"]);
    command.args(["--request-timeout", "20", "--warnings", "off"]);
    let limit = Duration::from_secs(seconds.parse::<u64>().expect("seconds") + 240);
    let output = run(&mut command, limit).expect("schemathesis to end");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    // The agent is ready: it runs, and the maps are in sync.
    assert_eq!(agent.http("GET", "/readyz", None).0, 200);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}
