//! Confirmation of restores, and restores of another gateway's backup.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tests::{
    net::{
        namespace::Namespace,
        process::{fail, run, succeed},
    },
    services::agent::{Agent, binary},
};

use crate::{BackupFixture, offline};

/// Runs the command line on a terminal and types an answer.
fn run_on_terminal(agent: &Agent, line: &str, answer: &str) -> Output {
    let input = tempfile::NamedTempFile::new().expect("a file");
    let mut file = input.as_file();
    writeln!(file, "{answer}").expect("an answer");
    let mut command = Command::new("sh");
    // `script` creates the terminal and types its own input there.
    command
        .args(["-c", "script -qec \"$1\" /dev/null < \"$2\"", "sh"])
        .arg(format!("{} {line}", binary().display()))
        .arg(input.path())
        .env("PLGW_SOCKET", agent.socket());
    run(&mut command, Duration::from_secs(60)).expect("the command to end")
}

#[test]
fn restore_shows_its_changes_and_asks_for_confirmation() {
    let backed_up = BackupFixture::new();
    let agent = &backed_up.testbed.agent;
    let good = backed_up.valid_backup().display().to_string();
    agent.cli("connection reject a/web");
    agent.cli("tenant create later");
    let changed = agent.cli("export");
    // Without a terminal nobody can confirm, so the restore needs --yes.
    let refusal = agent.cli_error(&format!("restore {good}"));
    assert!(refusal.contains("give --yes"), "{refusal}");
    let plan = agent.json(&format!("restore --dry-run {good}"));
    assert_eq!(plan["foreign"], false);
    let connections = plan["connections"].as_array().expect("connections");
    assert_eq!(
        *connections,
        [json!({ "endpoint": "a/web", "service": "shop/web",
            "before": "Rejected", "after": "Approved" })]
    );
    let tenants = json!({ "kind": "tenant", "created": 0, "updated": 0, "deleted": 1 });
    let changes = plan["changes"].as_array().expect("changes");
    assert!(changes.contains(&tenants), "{plan}");
    let shown = agent.cli(&format!("restore --dry-run {good}"));
    assert!(
        shown.contains("Rejected") && shown.contains("tenants"),
        "{shown}"
    );
    let line = format!("restore {good}");
    for answer in ["n", "", "nonsense"] {
        let output = run_on_terminal(agent, &line, answer);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "{answer:?}: {text}");
        assert!(text.contains("nothing was changed"), "{answer:?}: {text}");
    }
    assert_eq!(agent.cli("export"), changed);
    let output = run_on_terminal(agent, &line, "y");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("Restore this?"),
        "{text}"
    );
    assert_ne!(agent.cli("export"), changed);
    assert_eq!(
        agent.json("endpoint show a/web")["status"]["connection"]["state"],
        "Approved"
    );
}

#[test]
fn offline_restore_asks_for_confirmation() {
    let mut backed_up = BackupFixture::new();
    backed_up.testbed.agent.cli("tenant create later");
    backed_up.testbed.agent.stop();
    let agent = &backed_up.testbed.agent;
    let store = agent.state_directory().join("state.db");
    let bytes = fs::read(&store).expect("the store");
    let refusal = fail(&mut offline(agent, "", &backed_up.valid_backup()));
    assert!(refusal.contains("give --yes"), "{refusal}");
    let shown = succeed(&mut offline(agent, "--dry-run", &backed_up.valid_backup()));
    assert!(shown.contains("tenants"), "{shown}");
    assert_eq!(fs::read(&store).expect("the store"), bytes);
    succeed(&mut offline(agent, "--yes", &backed_up.valid_backup()));
    backed_up.testbed.agent.restart();
    let refusal = backed_up.testbed.agent.cli_error("tenant show later");
    assert!(refusal.contains("there is no tenant later"), "{refusal}");
    let aside = backed_up
        .testbed
        .agent
        .state_directory()
        .join("state.db.before-restore");
    assert_eq!(
        fs::metadata(aside).expect("the old store").mode() & 0o777,
        0o600
    );
}

#[test]
fn restoring_another_gateways_backup_needs_confirmation() {
    let backed_up = BackupFixture::new();
    let good = backed_up.valid_backup();
    let host = Arc::new(Namespace::new("gw"));
    let mut other = Agent::start(&host);
    other.cli("tenant create mine");
    let line = good.display().to_string();
    let refusal = other.cli_error(&format!("restore --yes {line}"));
    assert!(
        refusal.contains("another gateway") && refusal.contains("--foreign"),
        "{refusal}"
    );
    let plan = other.json(&format!("restore --dry-run --foreign {line}"));
    assert_eq!(plan["foreign"], true);
    other.stop();
    let refusal = fail(&mut offline(&other, "--yes", &good));
    assert!(refusal.contains("another gateway"), "{refusal}");
    other.restart();
    other.cli("tenant show mine");
    other.cli(&format!("restore --yes --foreign {line}"));
    other.cli_error("tenant show mine");
    // The gateway keeps its identity after a foreign restore, so its own backups need no --foreign.
    let own = backed_up.directory.path().join("own");
    other.cli(&format!("backup {}", own.display()));
    other.cli(&format!("restore --yes {}", own.display()));
    other.stop();
    succeed(&mut offline(&other, "--yes --foreign", &good));
    other.restart();
    other.cli(&format!("restore --yes {}", own.display()));
    // Without a store, a restore takes over the backup's identity.
    other.stop();
    fs::remove_dir_all(other.state_directory()).expect("a directory");
    succeed(&mut offline(&other, "--yes", &good));
    other.restart();
    other.cli(&format!("restore --yes {line}"));
}
