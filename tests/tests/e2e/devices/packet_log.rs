//! The packet log: a line names the endpoint, the network, the interface and the packet.

use std::{
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use tests::net::{
    process::{run, succeed},
    topology::{ENDPOINT, Testbed},
    wait,
};

use crate::redirect::{lose_replies, open_flow, serve};

/// Waits for a line of the agent's log that has all of these parts, and returns it.
#[track_caller]
fn wait_for_line(testbed: &Testbed, parts: &[&str]) -> String {
    wait::until(
        &format!("a line with {parts:?}"),
        wait::DEFAULT_TIMEOUT,
        || {
            let log = testbed.agent.log();
            let mut lines = log.lines();
            let line = lines.find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        },
    )
}

#[test]
fn packet_log_names_endpoint_network_interface_and_packet() {
    // The log level is the default: no second setting is needed.
    let testbed = Testbed::unconfigured_with(&[("PLGW_LOG_PACKETS", "true")]);
    testbed.configure();

    // A rejected packet is answered, and the log shows the packet as it arrived.
    let refused = testbed.a.run_in(|| {
        let address = format!("{ENDPOINT}:80").parse().expect("an address");
        TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_err()
    });
    assert!(refused, "the connection is not approved");
    let line = wait_for_line(
        &testbed,
        &["packet: ", "reason=connection_not_approved", "proto=tcp"],
    );
    for part in [
        " INFO ",
        " endpoint=a/web network=a/net interface=gw-a src=10.0.0.5:",
        " dst=10.0.0.100:80 proto=tcp length=",
    ] {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }

    testbed.approve_connections();
    testbed.provider.run_in(|| {
        let socket = UdpSocket::bind("10.1.0.10:5353").expect("a socket");
        socket.send_to(b"x", "10.1.0.64:4000").expect("a datagram");
    });
    let line = wait_for_line(&testbed, &["reason=no_flow", "interface=gw-p"]);
    let expected = "packet: rejected reason=no_flow endpoint=- network=shop/net interface=gw-p \
                    src=10.1.0.10:5353 dst=10.1.0.64:4000 proto=udp";
    assert!(line.contains(expected), "{line}");

    let mut arping = testbed.b.command_line("arping -c 1 -w 1 -I eth0 10.0.0.99");
    run(&mut arping, wait::DEFAULT_TIMEOUT * wait::timeout_factor()).expect("arping");
    let line = wait_for_line(&testbed, &["reason=unknown_neighbour_target"]);
    let expected = "packet: dropped reason=unknown_neighbour_target endpoint=- network=b/net interface=gw-b \
                    src=10.0.0.5 dst=10.0.0.99 proto=arp";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn packet_log_has_frames_that_a_driver_did_not_take() {
    let testbed = Testbed::unconfigured_with(&[("PLGW_LOG_PACKETS", "true")]);
    testbed.configure();
    testbed.approve_connections();
    testbed.wait_for_backends();
    serve(&testbed.provider);
    let socket = open_flow(&testbed);
    succeed(&mut testbed.a.command_line("ethtool -K eth0 gro off"));
    lose_replies(&socket, "10");
    let line = wait_for_line(&testbed, &["packet: dropped reason=transmit_failed"]);
    let index = |interface: &str| {
        let show = format!("ip -o link show dev {interface}");
        let line = succeed(&mut testbed.host.command_line(&show));
        line.split(':').next().unwrap_or_default().to_owned()
    };
    for (name, interface) in [("from", "gw-p"), ("to", "gw-a")] {
        let part = format!(" {name}_ifindex={} ", index(interface));
        assert!(line.contains(&part), "{part:?} is not in: {line}");
    }
}
