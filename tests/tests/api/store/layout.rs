//! Flows in maps of another layout version.

use std::{fs, path::PathBuf};

use tests::{
    net::{
        process::{BackgroundProcess, fail, succeed},
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::nginx::Nginx,
};

#[test]
fn older_layout_flows_are_discarded_only_on_request_and_newer_layouts_are_kept() {
    let mut testbed = Testbed::new();
    testbed.wait_for_backends();
    let servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    testbed.agent.cli("connection approve a/web");
    for server in &servers {
        fs::write(server.root().join("large"), vec![7; 10 << 20]).expect("a file");
    }
    let mut curl = testbed.a.command("curl");
    curl.args(["-sS", "--limit-rate", "1k", "-o", "/dev/null"]);
    let _held =
        BackgroundProcess::start(curl.arg(format!("http://{ENDPOINT}/large"))).expect("curl");
    wait::until_true("an open flow", || {
        testbed.agent.json("status")["established_flows"].as_u64() > Some(0)
    });
    testbed.agent.stop();
    let version = gateway_common::maps::LAYOUT_VERSION;
    let pinned = testbed.agent.bpf_directory().to_owned();
    let of = |version: u32| pinned.join(format!("maps-v{version}"));
    let newer: PathBuf = of(version + 1);
    fs::create_dir(&newer).expect("a directory");
    let refusal = fail(&mut testbed.agent.run_command());
    assert!(refusal.contains("made by a newer program"), "{refusal}");
    fs::remove_dir(&newer).expect("a directory");
    // Layout 6 kept flows in hash maps.
    fs::rename(of(version), of(6)).expect("a directory");
    // The agent must not open the store: the older program could not use a store that this one has migrated.
    let store = testbed.agent.state_directory().join("state.db");
    let aside = store.with_extension("aside");
    fs::rename(&store, &aside).expect("the store");
    let refusal = fail(&mut testbed.agent.run_command());
    assert!(
        refusal.contains("can't take over their")
            && refusal.contains("--discard-incompatible-flows true"),
        "{refusal}"
    );
    assert!(!store.exists(), "a store was created");
    fs::rename(&aside, &store).expect("the store");
    testbed.agent.settings.insert(
        "PLGW_DISCARD_INCOMPATIBLE_FLOWS".to_owned(),
        "true".to_owned(),
    );
    testbed.agent.restart();
    assert!(testbed.agent.log().contains("flow entries discarded"));
    assert!(!of(6).exists());
    succeed(
        &mut testbed
            .a
            .command_line(&format!("curl -sS -m 10 http://{ENDPOINT}/name")),
    );
}
