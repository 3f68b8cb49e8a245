//! Damaged stores and restores, offline and online.

use std::{fs, path::Path, process::Command};

use tests::{
    net::{
        process::{fail, succeed},
        topology::{BACKENDS, ENDPOINT, Testbed},
    },
    services::{
        agent::{Agent, binary},
        nginx::Nginx,
    },
};

#[test]
fn damaged_store_is_refused_and_replaced_by_a_backup() {
    let mut testbed = Testbed::new();
    testbed.wait_for_backends();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    testbed.agent.cli("connection approve a/web");
    testbed.agent.cli("tenant token create a/t --role viewer");
    let directory = tempfile::tempdir().expect("a directory");
    let backup = directory.path().join("backup");
    testbed.agent.cli(&format!("backup {}", backup.display()));
    let mode = fs::metadata(&backup).expect("a file").permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    let refusal = testbed
        .agent
        .cli_error(&format!("backup {}", backup.display()));
    assert!(refusal.contains("can't be created"), "{refusal}");
    let whole = testbed.agent.cli("export");
    testbed.agent.stop();
    let file = testbed.agent.state_directory().join("state.db");
    let good = fs::read(&file).expect("the store");
    for (what, bad) in [
        // Longer than the header of an SQLite database, which has 100 bytes.
        ("another format", b"not a store. ".repeat(10)),
        ("a hole", {
            let mut bad = good.clone();
            // The root page of the entries' tree.
            bad[4_096..8_192].fill(0xa5);
            bad
        }),
        ("an empty file", Vec::new()),
        ("a truncated file", good[..good.len() / 2].to_vec()),
    ] {
        fs::write(&file, bad).expect("a file");
        let refusal = fail(&mut testbed.agent.run_command());
        assert!(
            refusal.contains("is damaged") && refusal.contains("plgw restore"),
            "{what}: {refusal}"
        );
        // Approved connections carry traffic without the agent.
        succeed(
            &mut testbed
                .a
                .command_line(&format!("curl -sS -m 10 http://{ENDPOINT}/name")),
        );
    }
    let restore = offline_restore(&testbed.agent);
    let nonsense = directory.path().join("nonsense");
    fs::write(&nonsense, "nonsense").expect("a file");
    let refusal = fail(&mut restore(&nonsense));
    assert!(refusal.contains("is not a backup"), "{refusal}");
    let output = succeed(&mut restore(&backup));
    assert!(output.contains("state.db.before-restore"), "{output}");
    assert!(output.contains("are not known"), "{output}");
    testbed.agent.restart();
    assert_eq!(testbed.agent.cli("export"), whole);
    // The backup holds the tokens.
    assert_eq!(
        testbed
            .agent
            .json("tenant token list")
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let refusal = fail(&mut restore(&backup));
    assert!(refusal.contains("another agent is running"), "{refusal}");
}

/// Returns a function that makes the command of an offline restore with the agent's settings.
fn offline_restore(agent: &Agent) -> impl Fn(&Path) -> Command + use<> {
    let run = agent.run_command();
    move |file| {
        let mut restore = Command::new(binary());
        for (key, value) in run.get_envs() {
            if let Some(value) = value {
                restore.env(key, value);
            }
        }
        restore.args(["restore", "--offline", "--yes"]).arg(file);
        restore
    }
}

/// Returns action and object of each event that a restore recorded.
fn restored_events(agent: &Agent) -> Vec<String> {
    let events = agent.json("event list");
    let events = events.as_array().expect("events").iter();
    let restored = events.filter(|event| event["message"] == "a backup was restored");
    restored
        .map(|event| format!("{} {}", event["action"], event["object"]).replace('"', ""))
        .collect()
}

#[test]
fn online_restore_keeps_later_revocations() {
    let mut testbed = Testbed::new();
    let agent = &testbed.agent;
    testbed.wait_for_backends();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    agent.cli("connection approve a/web");
    let whole = agent.cli("export");
    let directory = tempfile::tempdir().expect("a directory");
    let backup = directory.path().join("backup");
    agent.cli(&format!("backup {}", backup.display()));
    agent.cli("connection reject a/web");
    agent.cli("tenant create later");
    agent.cli("endpoint create b/later --network net --address 10.0.0.140 --service shop/web");
    let version = agent.json("tenant show later")["version"].as_u64();
    let last_id = |list: &serde_json::Value| -> Option<String> {
        let last = list.as_array().and_then(|list| list.last());
        last.and_then(|event| event["id"].as_str())
            .map(str::to_owned)
    };
    let before = last_id(&agent.json("event list"));
    agent.cli(&format!("restore --yes {}", backup.display()));
    assert_eq!(agent.cli("export"), whole);
    succeed(
        &mut testbed
            .a
            .command_line(&format!("curl -sS -m 10 http://{ENDPOINT}/name")),
    );
    let events = restored_events(agent);
    for expected in ["approved a/web", "deleted later", "deleted b/later"] {
        assert!(events.iter().any(|event| event == expected), "{events:?}");
    }
    // No object gets a version, and no event an id, that was in use before the restore.
    agent.cli("tenant create later");
    assert_ne!(agent.json("tenant show later")["version"].as_u64(), version);
    assert!(last_id(&agent.json("event list")) > before);
    let refusal = agent.cli_error("restore /etc/hostname");
    assert!(refusal.contains("the file is not a backup"), "{refusal}");
    assert_eq!(agent.json("status")["in_sync"], true);

    // An offline restore of a readable store records events, too.
    let known = restored_events(agent).len();
    agent.cli("connection reject a/web");
    testbed.agent.stop();
    let output = succeed(&mut offline_restore(&testbed.agent)(&backup));
    assert!(!output.contains("are not known"), "{output}");
    testbed.agent.restart();
    assert_eq!(testbed.agent.cli("export"), whole);
    let events = restored_events(&testbed.agent);
    assert!(events.len() < known && events.iter().any(|event| event == "approved a/web"));
    let last = testbed.agent.json("event list");
    let last = last.as_array().and_then(|list| list.last());
    assert_eq!(last.expect("an event")["from"], "offline");
}
