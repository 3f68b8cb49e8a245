//! Ends and restarts of the agent: flows continue, and store and kernel stay in sync.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use tests::{
    net::{
        process::{fail, succeed},
        topology::{ENDPOINT, Testbed},
        wait,
    },
    services::agent::{Agent, binary},
};

use crate::echo::{EchoSession, start_echo_servers};

/// Returns lists of the objects and flows, which a restart of the agent must not change.
fn state_snapshot(agent: &Agent) -> [String; 5] {
    [
        agent.cli("tenant list"),
        agent.cli("network list"),
        agent.cli("service list"),
        agent.cli("connection list"),
        flows(agent),
    ]
}

/// Returns the flow list without ages and idle times.
pub(crate) fn flows(agent: &Agent) -> String {
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
    let mut testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    let old = EchoSession::start(&testbed.a);
    old.expect_progress();
    let before = state_snapshot(&testbed.agent);
    testbed.agent.kill();
    old.expect_progress();
    // The data path opens new flows without the agent.
    let new = EchoSession::start(&testbed.b);
    new.expect_progress();
    testbed.agent.restart();
    old.expect_progress();
    new.expect_progress();
    let after = state_snapshot(&testbed.agent);
    assert_eq!(before[..4], after[..4]);
    assert!(
        after[4].starts_with(&before[4]) || after[4].ends_with(&before[4]),
        "flows before: {}\nflows after: {}",
        before[4],
        after[4]
    );
    // An orderly stop leaves the data path in place too.
    testbed.agent.stop();
    old.expect_progress();
    testbed.agent.restart();
    old.expect_progress();
    testbed.agent.cli("connection reject a/web");
    wait::until_true("the rejected connection's flow to end", || old.has_failed());
    new.expect_progress();
}

#[test]
fn store_and_kernel_are_in_sync_after_a_kill_at_any_moment() {
    let mut testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    let session = EchoSession::start(&testbed.b);
    for round in 0..8u64 {
        let socket = testbed.agent.socket();
        let worker = thread::spawn(move || {
            for verb in ["reject", "approve"].iter().cycle().take(200) {
                let mut command = Command::new(binary());
                command
                    .args(["connection", verb, "a/web"])
                    .env("PLGW_SOCKET", &socket);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                // The command fails when the agent is killed, which ends the round.
                if !command.status().is_ok_and(|status| status.success()) {
                    return;
                }
            }
        });
        // Versions can be compared for equality only, so the distinct ones are counted.
        let mut versions = HashSet::new();
        wait::until_true("changes of the endpoint", || {
            versions.insert(testbed.agent.json("endpoint show a/web")["version"].as_u64());
            versions.len() as u64 > 3 + round
        });
        testbed.agent.kill();
        worker.join().expect("the worker");
        testbed.agent.restart();
        let state =
            testbed.agent.json("endpoint show a/web")["status"]["connection"]["state"].clone();
        let mut curl = testbed
            .a
            .command_line(&format!("curl -sS -m 2 -o /dev/null telnet://{ENDPOINT}:7"));
        let answer = fail(curl.stdin(Stdio::null()));
        let refused = answer.contains("Failed to connect") || answer.contains("Couldn't connect");
        assert_eq!(
            refused,
            state != "Approved",
            "the connection is {state}, but curl says: {answer}"
        );
        // The last change before the kill may or may not have been committed. The next round needs an approved
        // connection.
        if state != "Approved" {
            testbed.agent.cli("connection approve a/web");
        }
        assert_eq!(testbed.agent.json("status")["in_sync"], true);
        session.expect_progress();
    }
}

#[test]
fn unload_stops_traffic_and_removes_all_kernel_state() {
    let mut testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    EchoSession::start(&testbed.a).expect_progress();
    let unload = |testbed: &Testbed| {
        let mut command = testbed.host.command(&binary().display().to_string());
        command
            .arg("unload")
            .env("PLGW_STATE_DIR", testbed.agent.state_directory());
        command.env("PLGW_BPF_DIR", testbed.agent.bpf_directory());
        command
    };
    let error = fail(&mut unload(&testbed));
    assert!(error.contains("another agent is running"), "{error}");
    testbed.agent.stop();
    succeed(&mut unload(&testbed));
    let left = fs::read_dir(testbed.agent.bpf_directory())
        .expect("a directory")
        .count();
    assert_eq!(left, 0, "files left in the BPF directory");
    wait::until_true("the XDP program to be detached", || {
        !testbed.host.ip("link show dev gw-a").contains("xdp")
    });
    // The configuration is kept in the store.
    testbed.agent.restart();
    testbed.wait_for_backends();
    EchoSession::start(&testbed.b).expect_progress();
}

#[test]
fn flows_continue_when_the_size_of_the_flow_tables_changes() {
    let mut testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    let session = EchoSession::start(&testbed.a);
    let other = EchoSession::start(&testbed.b);
    session.expect_progress();
    other.expect_progress();
    let before = state_snapshot(&testbed.agent);
    for size in ["2048", "131072", "1024"] {
        let setting = "PLGW_FLOW_TABLE_SIZE".to_owned();
        testbed.agent.settings.insert(setting, size.to_owned());
        testbed.agent.stop();
        testbed.agent.restart();
        session.expect_progress();
        other.expect_progress();
        assert_eq!(state_snapshot(&testbed.agent), before, "size {size}");
        let status = testbed.agent.json("status");
        assert_eq!(status["flow_table_size"].to_string(), size);
        let log = testbed.agent.log();
        assert!(log.contains("flow table: flows migrated count=2"), "{log}");
        assert!(!log.contains("flows lost"), "{log}");
    }
    // The tables of other sizes are gone.
    let pins = succeed(
        Command::new("find")
            .arg(testbed.agent.bpf_directory())
            .args(["-name", "FLOWS_V4*"]),
    );
    assert_eq!(pins.lines().count(), 1, "{pins}");
}

#[test]
fn idle_flow_is_garbage_collected() {
    let testbed = Testbed::with_approved_connections();
    start_echo_servers(&testbed.provider);
    testbed
        .agent
        .cli("service update shop/web --tcp-transitory-timeout 5");
    let mut stream = testbed
        .a
        .run_in(|| TcpStream::connect((ENDPOINT, 7)).expect("a connection"));
    stream.write_all(b"hello").expect("a sent request");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(flows(&testbed.agent).lines().count(), 1);
    drop(stream);
    wait::until(
        "the flow to be garbage collected",
        Duration::from_secs(30),
        || flows(&testbed.agent).is_empty().then_some(()),
    );
}
