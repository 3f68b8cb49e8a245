//! Faults of the store: power loss at any write, a full, failing or read-only disk, damage, and restores.
//!
//! No fault leaves a part of a change, and no traffic flows that the store does not allow.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use gateway::store::{self, Store as _};
use gateway_common::maps::{AddressKey, LocalAddress};
use tests::{
    fault::crash_consistency::{SyscallTrace, UnsyncedWrites},
    net::{
        namespace::Namespace,
        process::{BackgroundProcess, fail, succeed},
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::{
        agent::{Agent, binary},
        nginx::Nginx,
    },
};

/// A mounted file system of limited size, unmounted on drop.
struct SizedFilesystem(tempfile::TempDir);

impl SizedFilesystem {
    fn new(kilobytes: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tests"]);
        succeed(mount.arg(directory.path()));
        Self(directory)
    }
}

impl Drop for SizedFilesystem {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Returns a testbed whose store is on the file system.
fn testbed_on(disk: &SizedFilesystem) -> Testbed {
    let mut testbed = Testbed::unconfigured();
    let state = disk.0.path().join("state").display().to_string();
    testbed.agent.stop();
    testbed
        .agent
        .settings
        .insert("PLGW_STATE_DIR".to_owned(), state);
    testbed.agent.restart();
    testbed.configure();
    testbed
}

#[test]
fn full_disk_refuses_only_changes() {
    let disk = SizedFilesystem::new(600);
    let testbed = testbed_on(&disk);
    let agent = &testbed.agent;
    testbed.wait_for_backends();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    agent.cli("connection approve a/web");
    let before = agent.cli("export");
    let filler = disk.0.path().join("filler");
    let _full = fs::write(&filler, vec![0; 1 << 20]);
    // The store's files may have room for a few changes, but not for 200 large ones.
    let mut refusal = None;
    let mut made = Vec::new();
    for number in 0..200 {
        let label = "x".repeat(250);
        let mut command = agent.cli_command(&format!(
            "tenant create t{number} --label a={label} --label b={label}"
        ));
        let output = command.output().expect("an answer");
        if !output.status.success() {
            refusal = Some(String::from_utf8_lossy(&output.stderr).into_owned());
            break;
        }
        made.push(format!("t{number}"));
    }
    let refusal = refusal.expect("a refusal");
    assert!(
        refusal.contains("nothing was changed") && refusal.contains("full"),
        "{refusal}"
    );
    // Accepted changes are stored, the refused one is not, and traffic flows.
    let there: Vec<String> = agent
        .json("tenant list")
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|tenant| tenant["name"].as_str().filter(|name| name.starts_with('t')))
        .map(str::to_owned)
        .collect();
    let wanted: BTreeSet<&String> = made.iter().collect();
    assert_eq!(there.iter().collect::<BTreeSet<_>>(), wanted);
    succeed(
        &mut testbed
            .a
            .command_line(&format!("curl -sS -m 10 http://{ENDPOINT}/name")),
    );
    fs::remove_file(&filler).expect("a file");
    for tenant in &made {
        agent.cli(&format!("tenant delete {tenant}"));
    }
    assert_eq!(agent.cli("export"), before);
}

/// Makes a system call of a running agent on its store fail with an error, until the returned process ends.
fn inject_error(agent: &Agent, call: &str, error: &str) -> BackgroundProcess {
    let id = agent.pid().to_string();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-p", &id]);
    command.args(["-e", &format!("inject={call}:error={error}")]);
    for file in ["state.db", "state.db-wal"] {
        command.arg("-P").arg(agent.state_directory().join(file));
    }
    command.stderr(Stdio::null());
    let running = BackgroundProcess::start(&mut command).expect("strace");
    wait::until_true("strace to trace all threads", || {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("threads");
        tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0")
        })
    });
    running
}

#[test]
fn failing_disk_refuses_changes_without_partial_writes() {
    let mut testbed = Testbed::new();
    testbed.agent.cli("connection approve a/web");
    let before = testbed.agent.cli("export");
    for (call, error) in [
        ("pwrite64", "EROFS"),
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("fsync", "EIO"),
    ] {
        let mut failing = inject_error(&testbed.agent, call, error);
        let refusal = testbed.agent.cli_error("connection reject a/web");
        assert!(
            refusal.contains("nothing was changed"),
            "{call} {error}: {refusal}"
        );
        let (status, problem) = testbed
            .agent
            .http("POST", "/v1/tenants", Some("{\"name\":\"x\"}"));
        assert_eq!(status, 503, "{call} {error}: {problem}");
        assert!(problem.contains("store_unavailable"), "{problem}");
        assert_eq!(testbed.agent.cli("export"), before, "{call} {error}");
        failing.terminate();
        assert_eq!(testbed.agent.cli("export"), before, "{call} {error}");
        // Changes work again after the fault, in the kernel's maps, too.
        testbed.agent.cli("connection reject a/web");
        testbed.agent.cli("connection approve a/web");
        assert_eq!(testbed.agent.json("status")["in_sync"], true);
    }
    let last = testbed.agent.cli("export");
    testbed.agent.kill();
    testbed.agent.restart();
    assert_eq!(testbed.agent.cli("export"), last);
}

#[test]
fn read_only_file_system_is_reported_at_startup() {
    let disk = SizedFilesystem::new(4_096);
    let mut testbed = testbed_on(&disk);
    testbed.agent.stop();
    let mut mount = Command::new("mount");
    succeed(mount.args(["-o", "remount,ro"]).arg(disk.0.path()));
    let refusal = fail(&mut testbed.agent.run_command());
    assert!(refusal.contains("Read-only"), "{refusal}");
}

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

#[test]
fn power_loss_at_any_write_leaves_a_consistent_store() {
    let host = Arc::new(Namespace::new("gw"));
    // The trace begins with a complete store, since a new one gets its name only then.
    let mut agent = Agent::start(&host);
    agent.stop();
    let directory = tempfile::tempdir().expect("a directory");
    let traced = directory.path().join("trace");
    let state = agent.state_directory();
    let new = fs::read(state.join("state.db")).expect("the store");
    let plain = agent.run_command();
    let mut command = host.command("strace");
    command
        .args(["-f", "-y", "-xx", "-s", "100000", "-o"])
        .arg(&traced);
    command.args(["-e", "trace=pwrite64,ftruncate,fsync,fdatasync,unlink"]);
    for file in ["state.db", "state.db-wal"] {
        command.arg("-P").arg(state.join(file));
    }
    command.arg(binary()).arg("run");
    for (key, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = BackgroundProcess::start(&mut command).expect("strace");
    let socket = agent.socket();
    wait::until_true("the agent", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    // Each change writes several entries: an object and its events.
    for number in 0..25 {
        agent.cli(&format!("tenant create t{number}"));
        if number % 3 == 0 {
            agent.cli(&format!(
                "tenant token create t{number}/token --role viewer"
            ));
        }
        if number % 5 == 4 {
            agent.cli(&format!("tenant delete t{}", number - 1));
        }
    }
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid()))
        .expect("children");
    for child in children.split_whitespace() {
        succeed(Command::new("kill").arg(child));
    }
    wait::until_true("the agent to exit", || running.has_exited());
    let trace = SyscallTrace::read(&traced).with_file("state.db", new);
    assert!(trace.moments() > 200, "{}", trace.moments());
    let mut reached = 0;
    for moment in 0..trace.moments() {
        let mut oldest = None;
        for unsynced in UnsyncedWrites::ALL {
            let disk = tempfile::tempdir().expect("a directory");
            trace.cut(moment, unsynced, disk.path());
            let what = format!("{unsynced:?} after {moment} system calls");
            let store = store::Sqlite::open(&disk.path().join("state.db"))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let entries = store
                .list("")
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let key = gateway::model::VersionKey::default();
            let loaded = store::decode_entries(entries, key)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            // The events give the expected objects, so a part of a change is found.
            let mut wanted = BTreeSet::new();
            for (recorded, _) in &loaded.events {
                let event = &recorded.event;
                let object = format!("{} {}", event.kind, event.object);
                match event.action.to_string().as_str() {
                    "created" => wanted.insert(object),
                    _ => wanted.remove(&object),
                };
            }
            let tenants = loaded
                .state
                .tenants
                .keys()
                .map(|name| format!("tenant {name}"));
            let tokens = loaded
                .state
                .tokens
                .keys()
                .map(|token| format!("token {token}"));
            let there: BTreeSet<String> = tenants.chain(tokens).collect();
            assert_eq!(there, wanted, "{what}");
            // Synced changes are there, whichever unsynced writes were lost.
            let last = loaded.events.len();
            let oldest = *oldest.get_or_insert(last);
            assert!(
                last >= oldest && oldest >= reached,
                "{what}: {last} events, {reached} were synced"
            );
            if unsynced == UnsyncedWrites::Lost {
                reached = last;
            }
        }
    }
    assert!(reached > 30, "{reached}");
}

/// Returns the addresses of approved endpoints in the kernel's map.
fn approved_in_kernel(agent: &Agent) -> BTreeSet<String> {
    let layout = format!("maps-v{}", gateway_common::maps::LAYOUT_VERSION);
    let path = agent.bpf_directory().join(layout).join("ADDRESSES");
    let data = aya::maps::MapData::from_pin(&path).expect("the pinned map");
    let mut approved = BTreeSet::new();
    gateway::bpf::syscalls::for_each(
        std::os::fd::AsFd::as_fd(data.fd()),
        |key: &AddressKey, value: &LocalAddress| {
            if value.is_approved() {
                approved.insert(std::net::IpAddr::from(key.address).to_string());
            }
        },
    )
    .expect("the map's entries");
    approved
}

/// Kills the agent at random moments and compares store and kernel after each restart.
///
/// More kills: `PLGW_TEST_KILLS=1000 cargo xtask test random_kills`.
#[test]
fn random_kills_leave_store_and_kernel_in_sync() {
    let kills: u32 = env::var("PLGW_TEST_KILLS").map_or(8, |text| text.parse().expect("a number"));
    let mut testbed = Testbed::new();
    testbed
        .agent
        .cli("service update shop/web --auto-approval *");
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = move |below: u64| {
        // xorshift64 (Marsaglia): the same run every time.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..kills {
        let socket = testbed.agent.socket();
        let seed = next(1 << 30);
        let worker = thread::spawn(move || run_random_workload(&socket, seed));
        // The moment of the kill is random.
        thread::sleep(std::time::Duration::from_micros(next(60_000)));
        testbed.agent.kill();
        let acknowledged = worker.join().expect("the worker");
        testbed.agent.restart();
        let agent = &testbed.agent;
        let list = agent.json("endpoint list");
        let mut approved = BTreeSet::new();
        let mut there = BTreeSet::new();
        for endpoint in list.as_array().expect("a list") {
            let address = endpoint["addresses"][0]
                .as_str()
                .expect("an address")
                .to_owned();
            there.insert(endpoint["name"].as_str().expect("a name").to_owned());
            if endpoint["status"]["connection"]["state"] == "Approved" {
                approved.insert(address);
            }
        }
        assert_eq!(approved_in_kernel(agent), approved, "round {round}");
        assert_eq!(agent.json("status")["in_sync"], true, "round {round}");
        // Acknowledged changes are stored. The last change may be stored without an acknowledgement.
        for (name, created) in &acknowledged[..acknowledged.len().saturating_sub(1)] {
            let later = acknowledged.iter().rev().find(|(other, _)| other == name);
            if later.is_some_and(|(_, last)| last == created)
                && acknowledged.last().is_some_and(|(last, _)| last != name)
            {
                assert_eq!(
                    there.contains(name),
                    *created,
                    "round {round}: {name} {acknowledged:?}"
                );
            }
        }
        for name in there.iter().filter(|name| name.starts_with('k')) {
            agent.cli(&format!("endpoint delete a/{name}"));
        }
    }
}

/// Creates and deletes endpoints until the agent is gone.
///
/// Returns each endpoint's name, with true if it was created. The last change was not acknowledged.
fn run_random_workload(socket: &Path, seed: u64) -> Vec<(String, bool)> {
    let mut done: Vec<(String, bool)> = Vec::new();
    let mut state = seed | 1;
    loop {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = state % 12;
        let name = format!("k{number}");
        let exists = done
            .iter()
            .rev()
            .find(|(other, _)| *other == name)
            .is_some_and(|(_, created)| *created);
        let line = if exists {
            format!("endpoint delete a/{name}")
        } else {
            format!(
                "endpoint create a/{name} --network net --address 10.0.2.{} --service shop/web",
                number + 1
            )
        };
        let mut command = Command::new(binary());
        command
            .args(line.split_whitespace())
            .env("PLGW_SOCKET", socket);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let answered = command.status().is_ok_and(|status| status.success());
        done.push((name, !exists));
        if !answered {
            return done;
        }
    }
}

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
    fs::rename(of(version), of(version - 1)).expect("a directory");
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
    assert!(!of(version - 1).exists());
    succeed(
        &mut testbed
            .a
            .command_line(&format!("curl -sS -m 10 http://{ENDPOINT}/name")),
    );
}
