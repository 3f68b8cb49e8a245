//! Things that go wrong: the agent killed, interfaces gone, backends dead, files spoilt. The data
//! path goes on where it can, and what can't be done is said in one sentence.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tests::{
    net::{
        namespace::Namespace,
        process::{fail, succeed},
        topology::{BACKENDS, ENDPOINT, Testbed},
        wait,
    },
    services::agent::{Agent, binary},
};

/// A server that sends back what it gets, on both of the provider's addresses.
fn echo(provider: &Namespace) {
    for address in BACKENDS {
        let (ready, is_ready) = std::sync::mpsc::channel();
        provider.spawn(move || {
            let listener = TcpListener::bind((address, 7)).expect("a listener");
            ready.send(()).expect("a test that waits");
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut writer = stream.try_clone().expect("a stream");
                    let mut reader = stream;
                    let _peer_gone = std::io::copy(&mut reader, &mut writer);
                });
            }
        });
        is_ready.recv().expect("a server");
    }
}

/// A client that sends and checks what comes back, for as long as it lives.
struct EchoSession {
    round_trips: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    _thread: thread::JoinHandle<()>,
}

impl EchoSession {
    fn start(consumer: &Namespace) -> Self {
        let (turns, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, ended) = (Arc::clone(&turns), Arc::clone(&failed));
        let thread = consumer.spawn(move || {
            let mut stream = TcpStream::connect((ENDPOINT, 7)).expect("a connection");
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .expect("a stream");
            let mut answer = [0; 1_000];
            loop {
                let turn = counted.load(Ordering::Relaxed);
                let question = [turn.to_le_bytes()[0]; 1_000];
                let turned = stream
                    .write_all(&question)
                    .and_then(|()| stream.read_exact(&mut answer));
                if turned.is_err() || answer != question {
                    ended.store(1, Ordering::Relaxed);
                    return;
                }
                counted.store(turn + 1, Ordering::Relaxed);
            }
        });
        Self {
            round_trips: turns,
            failed,
            _thread: thread,
        }
    }

    /// Waits until it has gone on for a while.
    #[track_caller]
    fn expect_progress(&self) {
        let start = self.round_trips.load(Ordering::Relaxed);
        wait::until_true("the conversation to go on", || {
            assert_eq!(
                self.failed.load(Ordering::Relaxed),
                0,
                "the conversation broke off"
            );
            self.round_trips.load(Ordering::Relaxed) > start + 100
        });
    }
}

/// What can't change while the agent is away.
fn state_snapshot(agent: &Agent) -> [String; 5] {
    [
        agent.cli("tenant list"),
        agent.cli("network list"),
        agent.cli("service list"),
        agent.cli("connection list"),
        flows(agent),
    ]
}

/// The flows, without their times.
fn flows(agent: &Agent) -> String {
    let list = agent.json("flow list");
    let flows = list.as_array().expect("a list").iter().map(|flow| {
        format!(
            "{} {} {} {} {}",
            flow["endpoint"], flow["client"], flow["nat"], flow["backend"], flow["state"]
        )
    });
    flows.collect::<Vec<_>>().join("\n")
}

#[test]
fn killed_agent_interrupts_no_flow_and_restarts_in_the_same_state() {
    let mut site = Testbed::with_approved_connections();
    echo(&site.provider);
    let old = EchoSession::start(&site.a);
    old.expect_progress();
    let before = state_snapshot(&site.agent);
    site.agent.kill();
    old.expect_progress();
    // New connections are opened without it.
    let new = EchoSession::start(&site.b);
    new.expect_progress();
    site.agent.restart();
    old.expect_progress();
    new.expect_progress();
    let after = state_snapshot(&site.agent);
    assert_eq!(before[..4], after[..4]);
    assert!(
        after[4].starts_with(&before[4]) || after[4].ends_with(&before[4]),
        "{after:?}"
    );
    // Told to stop, it leaves things as they are as well.
    site.agent.stop();
    old.expect_progress();
    site.agent.restart();
    old.expect_progress();
    site.agent.cli("connection reject a/web");
    wait::until_true("the conversation to be cut", || {
        old.failed.load(Ordering::Relaxed) == 1
    });
    new.expect_progress();
}

#[test]
fn store_and_kernel_are_in_sync_after_a_kill_at_any_moment() {
    let mut site = Testbed::with_approved_connections();
    echo(&site.provider);
    let paying = EchoSession::start(&site.b);
    for round in 0..8u64 {
        let socket = site.agent.socket();
        let worker = thread::spawn(move || {
            for verb in ["reject", "approve"].iter().cycle().take(200) {
                let mut command = Command::new(binary());
                command
                    .args(["connection", verb, "a/web"])
                    .env("PLGW_SOCKET", &socket);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                // It fails as soon as the agent is gone, which ends the round.
                if !command.status().is_ok_and(|status| status.success()) {
                    return;
                }
            }
        });
        // Versions are compared for equality only.
        let mut versions = HashSet::new();
        wait::until_true("changes", || {
            versions.insert(site.agent.json("endpoint show a/web")["version"].as_u64());
            versions.len() as u64 > 3 + round
        });
        site.agent.kill();
        worker.join().expect("the worker");
        site.agent.restart();
        let state = site.agent.json("endpoint show a/web")["status"]["connection"]["state"].clone();
        let mut curl = site
            .a
            .command_line(&format!("curl -sS -m 2 -o /dev/null telnet://{ENDPOINT}:7"));
        let answer = fail(curl.stdin(Stdio::null()));
        let refused = answer.contains("Failed to connect") || answer.contains("Couldn't connect");
        assert_eq!(refused, state != "Approved", "{state}: {answer}");
        // A killed agent's reject may have left the endpoint either way; begin anew.
        if state != "Approved" {
            site.agent.cli("connection approve a/web");
        }
        assert_eq!(site.agent.json("status")["in_sync"], true);
        paying.expect_progress();
    }
}

#[test]
fn second_agent_is_refused_and_the_first_continues() {
    let site = Testbed::with_approved_connections();
    let refusal = fail(&mut site.agent.run_command());
    assert!(refusal.contains("another agent is running"), "{refusal}");
    let refusal = fail(
        site.agent
            .run_command()
            .arg("--state-dir")
            .arg("/tmp/nowhere-else"),
    );
    assert!(refusal.contains("another agent is running"), "{refusal}");
    let _tidy = fs::remove_dir("/tmp/nowhere-else");
    site.agent.cli("status");
}

#[test]
fn removed_interface_is_reported_and_reused_when_it_returns() {
    let site = Testbed::with_approved_connections();
    echo(&site.provider);
    let paying = EchoSession::start(&site.b);
    paying.expect_progress();
    site.host.ip("link delete dev gw-a");
    let attachment = || site.agent.json("network show a/net")["status"]["attachments"][0].clone();
    wait::until_true("the loss to be seen", || attachment()["state"] == "missing");
    let status = site.agent.cli("status");
    assert!(status.contains("there is no interface gw-a"), "{status}");
    paying.expect_progress();
    site.host.connect("gw-a", &site.a);
    site.a.ip("address add 10.0.0.5/24 dev eth0");
    wait::until_true("its return to be seen", || {
        attachment()["xdp_mode"] == "native"
    });
    EchoSession::start(&site.a).expect_progress();
    paying.expect_progress();
}

#[test]
fn down_interface_is_reported_with_a_remedy() {
    let site = Testbed::with_approved_connections();
    site.host.ip("link set dev gw-p down");
    wait::until_true("it to be seen", || {
        site.agent.cli("status").contains("gw-p is down")
    });
    let refusal = fail(
        &mut site
            .a
            .command_line(&format!("curl -sS -m 5 http://{ENDPOINT}:7/")),
    );
    assert!(refusal.contains("connect"), "{refusal}");
    assert!(site.agent.drop_count("no_backend") > 0);
    site.host.ip("link set dev gw-p up");
    site.wait_for_backends();
}

#[test]
fn backend_mac_address_change_is_followed() {
    let site = Testbed::with_approved_connections();
    echo(&site.provider);
    EchoSession::start(&site.a).expect_progress();
    site.provider
        .ip("link set dev eth0 address 02:00:00:00:99:99");
    for address in BACKENDS {
        // As hosts do when their address moves.
        succeed(
            &mut site
                .provider
                .command_line(&format!("arping -q -c 1 -U -I eth0 {address}")),
        );
    }
    wait::until_true("the new station to be known", || {
        let text = site.host.ip("neighbour show dev gw-p");
        text.matches("02:00:00:00:99:99").count() == 2
    });
    EchoSession::start(&site.a).expect_progress();
}

#[test]
fn veth_peer_without_gro_is_reported() {
    let site = Testbed::with_approved_connections();
    succeed(&mut site.a.command_line("ethtool -K eth0 gro off"));
    // The kernel tells nobody of that; any change makes the agent look.
    site.host.ip("link set dev gw-a alias looked-at");
    wait::until_true("it to be reported", || {
        let text = site.agent.cli("-o json network show a/net");
        text.contains("what is forwarded into gw-a is lost") && text.contains("gro on")
    });
    succeed(&mut site.a.command_line("ethtool -K eth0 gro on"));
    site.host.ip("link set dev gw-a alias again");
    wait::until_true("it to be right again", || {
        site.agent.json("network show a/net")["status"]["attachments"][0]["problems"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
}

#[test]
fn interface_without_native_xdp_is_used_and_reported() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::start(&host);
    // A bridge has no XDP of its own.
    host.ip("link add name slow type bridge");
    host.ip("link set dev slow up");
    agent.cli("tenant create t");
    agent.cli("network create t/net --interface slow");
    let network = agent.json("network show t/net");
    let attachment = &network["status"]["attachments"][0];
    assert_eq!(attachment["xdp_mode"], "generic", "{network}");
    assert!(
        attachment["problems"].to_string().contains("no native XDP"),
        "{network}"
    );
}

#[test]
fn foreign_xdp_program_is_not_replaced() {
    let site = Testbed::unconfigured();
    let other = Agent::start(&site.host);
    for agent in [&site.agent, &other] {
        agent.cli("tenant create t");
    }
    site.agent.cli("network create t/net --interface gw-a");
    other.cli("network create t/net --interface gw-a");
    let text = other.cli("status");
    assert!(text.contains("another XDP program is attached"), "{text}");
    let network = site.agent.json("network show t/net");
    assert_eq!(network["status"]["attachments"][0]["xdp_mode"], "native");
}

#[test]
fn unload_stops_traffic_and_removes_all_kernel_state() {
    let mut site = Testbed::with_approved_connections();
    echo(&site.provider);
    let conversation = EchoSession::start(&site.a);
    conversation.expect_progress();
    let unload = |site: &Testbed| {
        let mut command = site.host.command(&binary().display().to_string());
        command
            .arg("unload")
            .env("PLGW_STATE_DIR", site.agent.state_directory());
        command.env("PLGW_BPF_DIR", site.agent.bpf_directory());
        command
    };
    let refusal = fail(&mut unload(&site));
    assert!(refusal.contains("another agent is running"), "{refusal}");
    site.agent.stop();
    succeed(&mut unload(&site));
    let left = fs::read_dir(site.agent.bpf_directory())
        .expect("a directory")
        .count();
    assert_eq!(left, 0);
    wait::until_true("the program to be gone", || {
        !site.host.ip("link show dev gw-a").contains("xdp")
    });
    // What was configured is there still.
    site.agent.restart();
    site.wait_for_backends();
    EchoSession::start(&site.b).expect_progress();
}

#[test]
fn idle_flow_is_garbage_collected() {
    let site = Testbed::with_approved_connections();
    echo(&site.provider);
    site.agent
        .cli("service update shop/web --tcp-transitory-timeout 5");
    let mut stream = site
        .a
        .run_in(|| TcpStream::connect((ENDPOINT, 7)).expect("a connection"));
    stream.write_all(b"hello").expect("to send");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(flows(&site.agent).lines().count(), 1);
    drop(stream);
    wait::until("the flow to go", Duration::from_secs(30), || {
        flows(&site.agent).is_empty().then_some(())
    });
}

#[test]
fn startup_failures_are_reported() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::prepare(&host);
    let says = |change: &dyn Fn(&mut Command), expected: &str| {
        let mut command = agent.run_command();
        change(&mut command);
        let text = fail(&mut command);
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
        // The log, which goes to the same place, may say more before.
        let last = text.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("plgw: "), "{text}");
    };
    let elsewhere = tempfile::tempdir().expect("a directory");
    says(
        &|command| {
            command.arg("--bpf-dir").arg(elsewhere.path());
        },
        "mount -t bpf bpf /sys/fs/bpf",
    );
    says(
        &|command| {
            command.arg("--bpf-dir").arg("/tmp");
        },
        "configure a directory inside it",
    );
    says(
        &|command| {
            command.arg("--config").arg("/nowhere/plgw.toml");
        },
        "can't read the configuration /nowhere/plgw.toml",
    );
    says(
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
        "this is no database, and long enough to be looked at as if it were one",
    )
    .expect("a file");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&store, private).expect("a mode");
    says(&|_| {}, "state.db");
    assert!(
        fs::read(&store)
            .expect("the file")
            .starts_with(b"this is no database"),
        "it was overwritten"
    );
}

#[test]
fn agent_without_root_reports_it() {
    let files = tempfile::tempdir().expect("a directory");
    let copy = files.path().join("plgw");
    fs::copy(binary(), &copy).expect("a copy that everyone may run");
    std::os::unix::fs::chown(files.path(), Some(65_534), None).expect("a directory of nobody's");
    let mut command = Command::new(&copy);
    command.arg("run").uid(65_534);
    let text = fail(&mut command);
    assert!(text.contains("must run as root"), "{text}");
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
    let mut site = Testbed::unconfigured();
    site.agent.kill();
    let text = site.agent.cli_error("tenant list");
    assert!(text.contains("is gone: start it with"), "{text}");
    // The socket that it left does not keep the next one from starting.
    site.agent.restart();
    site.agent.cli("tenant list");
}
