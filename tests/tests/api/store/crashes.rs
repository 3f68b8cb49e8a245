//! Power loss at any write, and kills of the agent at any moment.

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
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
        process::{BackgroundProcess, succeed},
        topology::Testbed,
        wait,
    },
    services::agent::{Agent, binary},
};

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
    assert!(trace.crash_points() > 200, "{}", trace.crash_points());
    let mut reached = 0;
    for crash_point in 0..trace.crash_points() {
        let mut oldest = None;
        for unsynced in UnsyncedWrites::ALL {
            let disk = tempfile::tempdir().expect("a directory");
            trace.replay_until(crash_point, unsynced, disk.path());
            let what = format!("{unsynced:?} after {crash_point} system calls");
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
