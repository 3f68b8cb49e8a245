//! Errors of an agent that can't start, and of a command line without an agent.

use std::{fs, os::unix::process::CommandExt as _, process::Command, sync::Arc};

use tests::{
    net::{namespace::Namespace, process::fail, topology::Testbed},
    services::agent::{Agent, binary},
};

#[test]
fn second_agent_is_refused_and_the_first_continues() {
    let testbed = Testbed::with_approved_connections();
    let error = fail(&mut testbed.agent.run_command());
    assert!(error.contains("another agent is running"), "{error}");
    let error = fail(
        testbed
            .agent
            .run_command()
            .arg("--state-dir")
            .arg("/tmp/nowhere-else"),
    );
    assert!(error.contains("another agent is running"), "{error}");
    let _may_not_exist = fs::remove_dir("/tmp/nowhere-else");
    testbed.agent.cli("status");
}

#[test]
fn startup_failures_are_reported() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::prepare(&host);
    let expect_error = |change: &dyn Fn(&mut Command), expected: &str| {
        let mut command = agent.run_command();
        change(&mut command);
        let text = fail(&mut command);
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
        // The log goes to stderr too, so the error is the last line.
        let last = text.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("plgw: "), "{text}");
    };
    let elsewhere = tempfile::tempdir().expect("a directory");
    expect_error(
        &|command| {
            command.arg("--bpf-dir").arg(elsewhere.path());
        },
        "mount -t bpf bpf /sys/fs/bpf",
    );
    expect_error(
        &|command| {
            command.arg("--bpf-dir").arg("/tmp");
        },
        "configure a directory inside it",
    );
    expect_error(
        &|command| {
            command.arg("--config").arg("/nowhere/plgw.toml");
        },
        "can't read the configuration /nowhere/plgw.toml",
    );
    expect_error(
        &|command| {
            command.arg("--state-dir").arg("relative");
        },
        "absolute path",
    );
    let store = agent.state_directory().join("state.db");
    std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700)
        .recursive(true)
        .create(agent.state_directory())
        .expect("a directory");
    fs::write(
        &store,
        "this is no database, and long enough for the header of one to be read",
    )
    .expect("a file");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&store, private).expect("a mode");
    expect_error(&|_| {}, "state.db");
    assert!(
        fs::read(&store)
            .expect("the file")
            .starts_with(b"this is no database"),
        "the agent overwrote the file"
    );
}

#[test]
fn agent_without_root_reports_it() {
    let files = tempfile::tempdir().expect("a directory");
    let copy = files.path().join("plgw");
    fs::copy(binary(), &copy).expect("a copy that every user may run");
    std::os::unix::fs::chown(files.path(), Some(65_534), None)
        .expect("a directory of the user nobody");
    let mut command = Command::new(&copy);
    command.arg("run").uid(65_534);
    let text = fail(&mut command);
    assert!(
        text.contains("the agent is not root: start it as root"),
        "{text}"
    );
}

#[test]
fn cli_without_an_agent_reports_it() {
    let mut command = Command::new(binary());
    command.args(["tenant", "list", "--socket", "/nowhere/plgw.sock"]);
    let text = fail(&mut command);
    assert!(
        text.contains("no agent listens on /nowhere/plgw.sock"),
        "{text}"
    );
    // A killed agent leaves its socket behind.
    let mut testbed = Testbed::unconfigured();
    testbed.agent.kill();
    let text = testbed.agent.cli_error("tenant list");
    assert!(text.contains("is gone: start it with"), "{text}");
    // The stale socket of a killed agent does not prevent the next start.
    testbed.agent.restart();
    testbed.agent.cli("tenant list");
}
