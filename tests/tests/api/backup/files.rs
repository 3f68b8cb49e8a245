//! Permissions and owners of the agent's files, and the lock of the run directory.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use tests::{
    net::{
        namespace::Namespace,
        process::{BackgroundProcess, fail, succeed},
        wait,
    },
    services::{
        agent::{Agent, binary},
        test_ca::TestCa,
    },
};

/// Starts an agent with umask 0.
fn start_with_open_umask(host: &Arc<Namespace>, agent: &Agent) -> BackgroundProcess {
    let mut command = host.command("sh");
    command
        .args(["-c", "umask 0; exec \"$0\" run"])
        .arg(binary());
    for (key, value) in agent.run_command().get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let running = BackgroundProcess::start(&mut command).expect("the agent");
    let socket = agent.socket();
    wait::until_true("the agent", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    running
}

/// Returns the permission bits of a file.
fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

#[test]
fn agent_files_are_private_with_any_umask() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::prepare(&host);
    let _running = start_with_open_umask(&host, &agent);
    agent.cli("tenant create a");
    let secret = agent.json("tenant token create a/t --role viewer")["secret"].to_string();
    let state = agent.state_directory();
    assert_eq!(mode(&state), 0o700);
    let files: Vec<PathBuf> = fs::read_dir(&state)
        .expect("a directory")
        .map(|entry| entry.expect("a file").path())
        .collect();
    assert!(
        files.iter().any(|file| file.ends_with("state.db-wal")),
        "{files:?}"
    );
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(agent.bpf_directory()), 0o700);
    let socket = agent.socket();
    assert_eq!(mode(socket.parent().expect("a directory")), 0o755);
    assert_eq!(mode(&socket), 0o660);
    // Files that the command line writes are private, too.
    let directory = tempfile::tempdir().expect("a directory");
    let (backup, token) = (
        directory.path().join("backup"),
        directory.path().join("token"),
    );
    for (line, file) in [
        ("backup", &backup),
        (
            "tenant token create a/u --role viewer --output-file",
            &token,
        ),
    ] {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 0; exec \"$@\"", "sh"])
            .arg(binary())
            .args(line.split_whitespace())
            .arg(file)
            .env("PLGW_SOCKET", &socket);
        succeed(&mut command);
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    // A backup leaves no copy in the state directory, and holds the hashes of secrets only.
    assert_eq!(
        fs::read_dir(&state).expect("a directory").count(),
        files.len()
    );
    let content = fs::read_to_string(&backup).expect("the backup");
    assert!(!content.contains(secret.trim_matches('"')));
    let mut other = Command::new("setpriv");
    other
        .args(["--reuid", "65534", "--clear-groups", "cat"])
        .arg(state.join("state.db"));
    fail(&mut other);
}

#[test]
fn agent_refuses_to_start_on_files_accessible_to_others() {
    let host = Arc::new(Namespace::new("gw"));
    let mut agent = Agent::start(&host);
    agent.cli("tenant create a");
    agent.stop();
    let state = agent.state_directory();
    let store = state.join("state.db");
    let run = agent.socket().parent().expect("a directory").to_owned();
    let bpf = agent.bpf_directory().to_owned();
    for (path, bad, good) in [
        (&state, 0o755, 0o700),
        (&state, 0o770, 0o700),
        (&store, 0o644, 0o600),
        (&store, 0o660, 0o600),
        (&run, 0o777, 0o755),
        (&run, 0o775, 0o755),
        (&bpf, 0o777, 0o755),
    ] {
        let set = |mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        set(bad);
        let refusal = fail(&mut agent.run_command());
        let remedy = format!("chmod {good:o} {}", path.display());
        assert!(refusal.contains(&remedy), "{bad:o}: {refusal}");
        set(good);
    }
    for path in [&state, &store, &run] {
        chown(path, Some(65_534), None).expect("an owner");
        let refusal = fail(&mut agent.run_command());
        let remedy = format!("chown 0 {}", path.display());
        assert!(refusal.contains(&remedy), "{refusal}");
        chown(path, Some(0), None).expect("an owner");
    }
    let ca = TestCa::new();
    let signed = ca.issue("localhost");
    for (key, value) in [
        ("PLGW_LISTEN", "127.0.0.1:0".to_owned()),
        (
            "PLGW_TLS_CERTIFICATE",
            signed.certificate.display().to_string(),
        ),
        ("PLGW_TLS_KEY", signed.key.display().to_string()),
    ] {
        agent.settings.insert(key.to_owned(), value);
    }
    fs::set_permissions(&signed.key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let refusal = fail(&mut agent.run_command());
    let remedy = format!("chmod 640 {}", signed.key.display());
    assert!(refusal.contains(&remedy), "{refusal}");
    fs::set_permissions(&signed.key, fs::Permissions::from_mode(0o640)).expect("a mode");
    agent.restart();
    agent.cli("tenant show a");
}

#[test]
fn second_agent_in_the_same_run_directory_is_refused_with_the_first_ones_pid() {
    let host = Arc::new(Namespace::new("gw"));
    let first = Agent::start(&host);
    let mut second = Agent::prepare(&host);
    let run = first
        .socket()
        .parent()
        .expect("a directory")
        .display()
        .to_string();
    second
        .settings
        .insert("PLGW_RUN_DIR".to_owned(), run.clone());
    let refusal = fail(&mut second.run_command());
    let expected = format!(
        "another agent is running with {run} (process {})",
        first.pid()
    );
    assert!(refusal.contains(&expected), "{refusal}");
    // The first agent still has the socket.
    first.cli("tenant create a");
    first.cli("tenant show a");
}
