//! Netlink events that the kernel drops because the agent's socket is full.

use std::{fs, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use tests::net::{process::succeed, topology::Testbed, wait};

/// Number of events that are more than the socket's buffer holds.
const EVENTS: usize = 2_000;

/// Time within which the agent is to notice a change. Full scans are a minute apart.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the number of messages that netlink sockets of the host's namespace have lost.
fn lost_messages(testbed: &Testbed) -> u64 {
    let sockets = testbed
        .host
        .run_in(|| fs::read_to_string("/proc/thread-self/net/netlink").expect("the sockets"));
    // sk, Eth, Pid, Groups, Rmem, Wmem, Dump, Locks, Drops, Inode
    let drops = sockets.lines().skip(1).map(|line| {
        let drops = line.split_whitespace().nth(8);
        drops.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    });
    drops.sum()
}

#[test]
fn change_is_noticed_although_its_netlink_event_was_lost() {
    let testbed = Testbed::with_approved_connections();
    testbed
        .host
        .ip("link add name other type veth peer name other-peer");
    // The kernel reports changes of interfaces that are up.
    testbed.host.ip("link set dev other up");
    let agent = Pid::from_raw(testbed.agent.pid().cast_signed());
    // A stopped agent reads no events, so its socket fills up. From then on the kernel drops messages.
    kill(agent, Signal::SIGSTOP).expect("a stopped agent");
    let commands: String = (0..EVENTS)
        .map(|number| format!("link set dev other alias name-{number}\n"))
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), commands).expect("a file");
    let batch = file.path().display();
    succeed(&mut testbed.host.command_line(&format!("ip -batch {batch}")));
    let lost = lost_messages(&testbed);
    assert!(lost > 0, "the socket holds {EVENTS} messages");
    testbed.host.ip("link set dev gw-p down");
    assert!(
        lost_messages(&testbed) > lost,
        "the event about the interface was not lost"
    );
    kill(agent, Signal::SIGCONT).expect("a running agent");
    wait::until("the agent to report the interface", NOTICE_TIMEOUT, || {
        let status = testbed.agent.cli("status");
        status.contains("gw-p is down").then_some(())
    });
    assert!(
        testbed.agent.log().contains("netlink: events lost"),
        "the overrun is logged"
    );
}
