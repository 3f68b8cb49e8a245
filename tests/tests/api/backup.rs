//! Backups, restores and the permissions of the agent's files.
//!
//! Damaged and crafted backups are refused online and offline, without a change. A restore shows its changes and
//! asks for confirmation. No other user can read or replace the agent's files.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use gateway::{
    model::{Object, event_id::EventId},
    store::{Backup, Entry, keys},
};
use serde_json::{Value, json};
use tests::{
    net::{
        namespace::Namespace,
        process::{BackgroundProcess, fail, run, succeed},
        topology::Testbed,
        wait,
    },
    services::{
        agent::{Agent, binary},
        test_ca::TestCa,
    },
};

/// Returns the command of an offline restore with the agent's settings.
fn offline(agent: &Agent, arguments: &str, file: &Path) -> Command {
    let mut restore = Command::new(binary());
    for (key, value) in agent.run_command().get_envs() {
        if let Some(value) = value {
            restore.env(key, value);
        }
    }
    restore
        .args(["restore", "--offline"])
        .args(arguments.split_whitespace())
        .arg(file);
    restore
}

/// A testbed with the file and content of its backup.
struct BackupFixture {
    testbed: Testbed,
    directory: tempfile::TempDir,
    content: Vec<u8>,
}

impl BackupFixture {
    fn new() -> Self {
        let testbed = Testbed::new();
        testbed.agent.cli("connection approve a/web");
        testbed.agent.cli("tenant token create a/t --role viewer");
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("good");
        testbed.agent.cli(&format!("backup {}", file.display()));
        let content = fs::read(&file).expect("the backup");
        Self {
            testbed,
            directory,
            content,
        }
    }

    /// Returns the path of the backup.
    fn valid_backup(&self) -> PathBuf {
        self.directory.path().join("good")
    }

    /// Writes a file beside the backup and returns its path.
    fn file(&self, content: &[u8]) -> PathBuf {
        let file = self.directory.path().join("file");
        fs::write(&file, content).expect("a file");
        file
    }

    /// Returns the backup with changed entries and a valid checksum.
    fn craft(&self, change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
        let mut backup = Backup::decode(&self.content).expect("the backup");
        change(&mut backup.entries);
        backup.entries.sort_by(|one, other| one.key.cmp(&other.key));
        backup.encode().expect("a backup")
    }

    /// Checks that each file is refused online and offline, and changes nothing.
    ///
    /// A file has a name for messages, its content, and a part of the expected error.
    fn expect_all_refused(&mut self, files: &[(&str, Vec<u8>, &str)]) {
        let before = self.testbed.agent.cli("export");
        let tokens = self.testbed.agent.json("tenant token list");
        for (what, content, expected) in files {
            let file = self.file(content);
            let line = format!("restore --yes {}", file.display());
            let refusal = self.testbed.agent.cli_error(&line);
            assert!(refusal.contains(expected), "{what}: {refusal}");
            assert!(!refusal.contains("SELECT"), "{what}: {refusal}");
        }
        assert_eq!(self.testbed.agent.cli("export"), before);
        assert_eq!(self.testbed.agent.json("tenant token list"), tokens);
        self.testbed.agent.stop();
        let store = self.testbed.agent.state_directory().join("state.db");
        let bytes = fs::read(&store).expect("the store");
        for (what, content, expected) in files {
            let file = self.file(content);
            let refusal = fail(&mut offline(&self.testbed.agent, "--yes", &file));
            assert!(refusal.contains(expected), "{what}: {refusal}");
            assert_eq!(fs::read(&store).expect("the store"), bytes, "{what}");
        }
        for entry in fs::read_dir(self.testbed.agent.state_directory()).expect("a directory") {
            let name = entry.expect("a file").file_name();
            let name = name.to_string_lossy();
            let belongs_to_store = ["state.db", "state.db-wal", "state.db-shm"].contains(&&*name);
            assert!(belongs_to_store, "{name} was left beside the store");
        }
        self.testbed.agent.restart();
        assert_eq!(self.testbed.agent.cli("export"), before);
        assert_eq!(self.testbed.agent.json("tenant token list"), tokens);
    }
}

#[test]
fn incomplete_backup_is_refused_without_changes() {
    let mut backed_up = BackupFixture::new();
    let good = backed_up.content.clone();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut create_database = Command::new("sqlite3");
    let sqlite = backed_up.directory.path().join("sqlite");
    create_database
        .arg(&sqlite)
        .arg("CREATE TABLE entry (key, value, revision)");
    succeed(&mut create_database);
    let sqlite = fs::read(sqlite).expect("a file");
    backed_up.expect_all_refused(&[
        ("an empty file", Vec::new(), "the backup is empty"),
        (
            "another format",
            b"nonsense".to_vec(),
            "the file is not a backup",
        ),
        ("a database", sqlite, "put it in place as state.db"),
        (
            "the first half",
            good[..good.len() / 2].to_vec(),
            "is damaged",
        ),
        (
            "all but a byte",
            good[..good.len() - 1].to_vec(),
            "is damaged",
        ),
        ("a flipped bit", flipped, "is damaged"),
        ("two backups", [good.clone(), good].concat(), "is damaged"),
    ]);
}

/// Returns a change that edits one entry's JSON.
fn edit_entry(key: &str, edit: impl Fn(&mut Value)) -> impl FnOnce(&mut Vec<Entry>) {
    move |entries| {
        let entry = entries.iter_mut().find(|entry| entry.key == key);
        let entry = entry.expect("the entry");
        let mut value = serde_json::from_str(&entry.value).expect("JSON");
        edit(&mut value);
        entry.value = value.to_string();
    }
}

/// Returns a change that removes an entry.
fn remove_entry(key: &str) -> impl FnOnce(&mut Vec<Entry>) {
    move |entries| entries.retain(|entry| entry.key != key)
}

/// Returns a change that gives the last event another id.
fn set_last_event(id: EventId) -> impl FnOnce(&mut Vec<Entry>) {
    move |entries| {
        let events = entries.iter_mut().filter(|e| e.key.starts_with("events/"));
        let entry = events.last().expect("an event");
        let mut value: Value = serde_json::from_str(&entry.value).expect("JSON");
        value["id"] = json!(id);
        entry.key = keys::event(id);
        entry.value = value.to_string();
    }
}

#[test]
fn crafted_backups_are_refused_without_changes() {
    let mut backed_up = BackupFixture::new();
    let entries = Backup::decode(&backed_up.content)
        .expect("the backup")
        .entries;
    let object = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key);
        let entry = entry.expect("the entry");
        Object::decode(key, &entry.value, 1).expect("an object")
    };
    // The greatest UUID of version 7: no event can have a later id.
    let latest = "ffffffff-ffff-7fff-bfff-ffffffffffff"
        .parse()
        .expect("an id");
    let (a, b, shop) = ("endpoints/a/web", "endpoints/b/web", "services/shop/web");
    let Object::Endpoint(_, other) = object(b) else {
        panic!("no endpoint");
    };
    let Object::Network(_, network) = object("networks/shop/net") else {
        panic!("no network");
    };
    let connection = other.object.connection;
    let set = |key, pointer: &'static str, value: Value| {
        backed_up.craft(edit_entry(key, move |json| {
            *json.pointer_mut(pointer).expect("a field") = value.clone();
        }))
    };
    let files = [
        (
            "the greatest slot",
            set(a, "/connection/slot", json!(u32::MAX)),
            "its slot",
        ),
        (
            "a slot twice",
            set(a, "/connection/slot", json!(connection.slot)),
            "its slot",
        ),
        (
            "a link id twice",
            set(a, "/connection/link_id", json!(connection.link_id)),
            "its number",
        ),
        (
            "Pending with a generation",
            set(b, "/connection/generation", json!(7)),
            "Pending with generation",
        ),
        (
            "Approved without a generation",
            set(b, "/connection/state", json!("Approved")),
            "with generation 0",
        ),
        (
            "another service",
            set(a, "/service_identity/uid", json!(uuid())),
            "there is no service",
        ),
        (
            "no resource",
            set(a, "/resource", json!("gone")),
            "has no resource",
        ),
        (
            "a loopback address",
            set(a, "/addresses/0", json!("127.0.0.1")),
            "loopback",
        ),
        (
            "a number twice",
            set(shop, "/number", json!(network.object.number)),
            "its number",
        ),
        (
            "an interface twice",
            set("networks/a/net", "/attachments/0/interface", json!("gw-b")),
            "its interface",
        ),
        (
            "too large a range",
            set(shop, "/nat_addresses", json!(["fd00::/64"])),
            "are more than",
        ),
        (
            "no network",
            backed_up.craft(remove_entry("networks/a/net")),
            "there is no network",
        ),
        (
            "no service",
            backed_up.craft(remove_entry(shop)),
            "there is no service",
        ),
        (
            "no tenant",
            backed_up.craft(remove_entry("tenants/a")),
            "there is no tenant",
        ),
        (
            "the greatest event id",
            backed_up.craft(set_last_event(latest)),
            "can't be restored",
        ),
        (
            "too great an event id",
            backed_up.craft(set_last_event(EventId::from_number((1 << 53) + 1))),
            "above 2^53",
        ),
        (
            "too great a revision",
            backed_up.craft(|entries| entries[0].revision = u64::MAX),
            "above 2^53",
        ),
        (
            "an unknown key",
            backed_up.craft(|entries| entries[0].key = "zz/x".to_owned()),
            "can't be restored",
        ),
        (
            "no JSON",
            backed_up.craft(|entries| entries[0].value = "nonsense".to_owned()),
            "can't be restored",
        ),
        (
            "deeply nested JSON",
            backed_up.craft(|entries| entries[0].value = "[".repeat(1 << 20)),
            "can't be restored",
        ),
    ];
    backed_up.expect_all_refused(&files);
}

/// Returns a UUID that no object has.
fn uuid() -> String {
    "00000000-0000-4000-8000-000000000000".to_owned()
}

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
