//! Frames that the driver of the egress interface does not take.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::net::{
    namespace::Namespace,
    process::succeed,
    topology::{BACKENDS, ENDPOINT, Testbed},
    udp_client::request_until_accepted,
    wait,
};

/// Time within which a change at the far end is to be noticed.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(3);

/// Number of requests whose replies are lost.
const LOST_REPLIES: u64 = 20;

/// Returns the status of consumer A's attachment.
fn attachment(testbed: &Testbed) -> Value {
    testbed.agent.json("network show a/net")["status"]["attachments"][0].clone()
}

/// Starts servers on both backends that answer each datagram by as many bytes as it says. They run until the test
/// process exits.
pub(crate) fn serve(provider: &Namespace) {
    for address in BACKENDS {
        let socket = provider.run_in(move || UdpSocket::bind((address, 7)).expect("a socket"));
        std::thread::spawn(move || {
            let mut request = [0; 16];
            while let Ok((length, client)) = socket.recv_from(&mut request) {
                let text = String::from_utf8_lossy(&request[..length]);
                let reply = vec![0; text.parse().expect("a number")];
                let _client_gone = socket.send_to(&reply, client);
            }
        });
    }
}

/// Returns a socket of consumer A with an open flow to the endpoint.
pub(crate) fn open_flow(testbed: &Testbed) -> UdpSocket {
    let socket = testbed.a.run_in(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect((ENDPOINT, 7)).expect("a connected socket");
        socket
    });
    request_until_accepted(&socket, b"10", |reply| reply.len() == 10);
    socket
}

/// Sends requests whose replies have this length, and whose replies are lost.
pub(crate) fn lose_replies(socket: &UdpSocket, length: &str) {
    for _ in 0..LOST_REPLIES {
        socket.send(length.as_bytes()).expect("a request");
    }
}

/// Waits until that many lost frames are counted, at the attachment and in the gateway's status.
#[track_caller]
fn wait_for_losses(testbed: &Testbed, frames: u64) {
    wait::until("the lost frames to be counted", NOTICE_TIMEOUT, || {
        let counted = attachment(testbed)["drops"]["transmit_failed"].as_u64();
        (counted >= Some(frames)).then_some(())
    });
    assert!(testbed.agent.drop_count("transmit_failed") >= frames);
    let other = testbed.agent.json("network show b/net");
    let other = &other["status"]["attachments"][0]["drops"]["transmit_failed"];
    assert!(
        other.is_null(),
        "lost frames of another attachment: {other}"
    );
}

#[test]
fn gro_switched_off_at_the_far_end_is_noticed_at_once() {
    let testbed = Testbed::with_approved_connections();
    for (setting, is_reported) in [("off", true), ("on", false)] {
        succeed(
            &mut testbed
                .a
                .command_line(&format!("ethtool -K eth0 gro {setting}")),
        );
        let start = Instant::now();
        let what = format!("the agent to notice that GRO is {setting}");
        wait::until(&what, NOTICE_TIMEOUT, || {
            let problems = attachment(&testbed)["problems"].to_string();
            let named = problems.contains("packets redirected into gw-a are lost")
                && problems.contains("ethtool -K FAR_END gro on");
            (named == is_reported).then_some(())
        });
        println!("GRO {setting}: noticed after {:?}", start.elapsed());
    }
}

#[test]
fn frames_lost_at_a_far_end_without_gro_are_counted_without_the_agent_too() {
    let mut testbed = Testbed::with_approved_connections();
    serve(&testbed.provider);
    let socket = open_flow(&testbed);
    succeed(&mut testbed.a.command_line("ethtool -K eth0 gro off"));
    lose_replies(&socket, "10");
    wait_for_losses(&testbed, LOST_REPLIES);
    let status = testbed.agent.cli("status");
    let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(status.contains("gw-a did not take"), "{status}");
    let shown = testbed.agent.cli("network show a/net");
    assert!(shown.contains("transmit_failed"), "{shown}");
    assert!(
        testbed
            .agent
            .log()
            .contains("host: frames lost interface=gw-a")
    );

    testbed.agent.kill();
    lose_replies(&socket, "10");
    testbed.agent.restart();
    wait_for_losses(&testbed, 2 * LOST_REPLIES);

    // The restarted agent counts on.
    lose_replies(&socket, "10");
    wait_for_losses(&testbed, 3 * LOST_REPLIES);
}

#[test]
fn frames_that_exceed_the_far_ends_mtu_are_counted() {
    let testbed = Testbed::with_approved_connections();
    serve(&testbed.provider);
    let socket = open_flow(&testbed);
    testbed.a.ip("link set dev eth0 mtu 1000");
    lose_replies(&socket, "1200");
    wait_for_losses(&testbed, LOST_REPLIES);
    // Smaller frames pass.
    request_until_accepted(&socket, b"900", |reply| reply.len() == 900);
}
