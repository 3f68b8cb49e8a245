//! Clients whose MAC address or router changes: open connections go on with the next packet.

use std::{
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    time::{Duration, Instant},
};

use tests::net::{
    namespace::Namespace,
    topology::{ENDPOINT, Testbed},
    wait,
};

use super::{ask_until, echo, start_tcp_echo, start_udp_servers, udp_client};

const TCP: u16 = 7_410;
const UDP: u16 = 7_411;

/// Time in which the first answer after a move must come. A lost packet would cost a retransmission.
const MAX_OUTAGE: Duration = Duration::from_secs(2);

/// Opens a TCP connection and a UDP exchange from a namespace, runs each change, and measures how long it takes until
/// both are answered again.
fn expect_continuity(testbed: &Testbed, client: &Namespace, changes: &[(&str, &dyn Fn())]) {
    start_tcp_echo(&testbed.provider, TCP);
    start_udp_servers(&testbed.provider, UDP);
    let (next, steps) = mpsc::channel::<()>();
    let (report, reports) = mpsc::channel();
    let thread = client.spawn(move || {
        let endpoint: SocketAddr = format!("{ENDPOINT}:{TCP}").parse().expect("an address");
        let mut stream = wait::until("a connection", wait::DEFAULT_TIMEOUT, || {
            TcpStream::connect_timeout(&endpoint, Duration::from_secs(2)).ok()
        });
        stream.set_nodelay(true).expect("a stream");
        let limit = MAX_OUTAGE * 4 * wait::timeout_factor();
        stream.set_read_timeout(Some(limit)).expect("a stream");
        let socket = udp_client(UDP);
        for _ in 0..3 {
            echo(&mut stream).expect("an answer");
            ask_until(&socket, |_| true, limit);
        }
        report
            .send((Duration::ZERO, Duration::ZERO))
            .expect("a waiting test");
        for () in steps {
            let since = Instant::now();
            echo(&mut stream).expect("an answer after the change");
            let tcp = since.elapsed();
            let udp = ask_until(&socket, |_| true, limit);
            report.send((tcp, udp)).expect("a waiting test");
        }
    });
    reports.recv().expect("an open connection");
    for (name, change) in changes {
        change();
        next.send(()).expect("a client");
        let (tcp, udp) = reports.recv().expect("answers");
        println!("{name}: outage of TCP {tcp:?}, of UDP {udp:?}");
        let limit = MAX_OUTAGE * wait::timeout_factor();
        assert!(tcp < limit && udp < limit, "{name}: {tcp:?} and {udp:?}");
    }
    drop(next);
    thread.join().expect("a client");
}

#[test]
fn open_connections_survive_a_new_mac_address_of_the_client() {
    let testbed = Testbed::with_approved_connections();
    let set_mac = |mac: &'static str| testbed.a.ip(&format!("link set dev eth0 address {mac}"));
    expect_continuity(
        &testbed,
        &testbed.a,
        &[
            ("another MAC address", &|| {
                set_mac("02:00:00:00:77:01");
            }),
            ("a MAC address of another vendor", &|| {
                set_mac("52:54:00:12:34:56");
            }),
            ("the first one again", &|| {
                set_mac("02:00:00:00:77:01");
            }),
        ],
    );
}

/// Address of a client behind two routers.
const REMOTE_CLIENT: &str = "10.9.0.5";

#[test]
fn open_connections_survive_a_change_of_the_clients_router() {
    let testbed = Testbed::with_approved_connections();
    // The consumer's host becomes the switch of its network, with two routers.
    let switch = &testbed.a;
    switch.ip("address flush dev eth0");
    switch.ip("link add name br0 type bridge");
    switch.ip("link set dev br0 up");
    switch.ip("link set dev eth0 master br0");
    let client = Namespace::new("c");
    client.ip("link set dev lo up");
    client.ip(&format!("address add {REMOTE_CLIENT}/32 dev lo"));
    let routers = [Namespace::new("r1"), Namespace::new("r2")];
    for (router, number) in routers.iter().zip(1..) {
        let port = format!("port{number}");
        switch.connect_as(&port, router, "lan");
        switch.ip(&format!("link set dev {port} master br0"));
        router.ip(&format!("address add 10.0.0.{number}/24 dev lan"));
        client.connect_as(&format!("up{number}"), router, "down");
        router.ip(&format!("address add 10.9.{number}.1/24 dev down"));
        client.ip(&format!("address add 10.9.{number}.2/24 dev up{number}"));
        router.ip(&format!("route add {REMOTE_CLIENT} via 10.9.{number}.2"));
        router.run_in(|| {
            for (setting, value) in [
                ("ip_forward", "1"),
                ("conf/all/rp_filter", "0"),
                ("conf/lan/rp_filter", "0"),
                ("conf/down/rp_filter", "0"),
            ] {
                std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).expect("a setting");
            }
        });
    }
    client.run_in(|| {
        for setting in [
            "conf/all/rp_filter",
            "conf/up1/rp_filter",
            "conf/up2/rp_filter",
        ] {
            std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), "0").expect("a setting");
        }
    });
    let route = |number: u8| {
        client.ip(&format!(
            "route replace 10.0.0.0/24 via 10.9.{number}.1 dev up{number} src {REMOTE_CLIENT}"
        ));
    };
    route(1);
    expect_continuity(
        &testbed,
        &client,
        &[
            ("the second router", &|| {
                route(2);
                // The first one is dead: what is sent to it is lost.
                routers[0].ip("link set dev lan down");
            }),
            ("the first router", &|| {
                routers[0].ip("link set dev lan up");
                route(1);
                routers[1].ip("link set dev lan down");
            }),
        ],
    );
}
