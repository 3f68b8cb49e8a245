//! A flood from a million sources, and malformed frames made by Scapy.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use gateway::inject::PacketSocket;
use tests::{
    datapath::differential::tcp,
    net::{
        process::{run, succeed},
        topology::{BACKENDS, CLIENT, ENDPOINT, Testbed},
        wait,
    },
    packet::Mac,
    services::nginx::Nginx,
};

/// Returns the MAC address of the gateway's interface.
fn interface_mac(testbed: &Testbed, interface: &str) -> String {
    let text = testbed.host.ip(&format!("-o link show dev {interface}"));
    let mut fields = text.split_whitespace();
    fields
        .by_ref()
        .find(|word| *word == "link/ether")
        .expect("an Ethernet interface");
    fields.next().expect("an address").to_owned()
}

/// Parses a MAC address.
fn parse_mac(mac: &str) -> Mac {
    let mut octets = [0; 6];
    for (octet, text) in octets.iter_mut().zip(mac.split(':')) {
        *octet = u8::from_str_radix(text, 16).expect("a MAC address");
    }
    octets
}

/// Sets the source address of a SYN to 11.0.0.0 plus the number. The checksums stay valid without recomputation: the
/// IP header's identification and the sequence number compensate for the change.
fn patch_source(frame: &mut [u8], number: u32) {
    let high = 11 << 8 | u16::try_from(number >> 16).expect("24 bits");
    let low = u16::try_from(number & 0xffff).expect("16 bits");
    let sum = u32::from(high) + u32::from(low);
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded");
    frame[26..28].copy_from_slice(&high.to_be_bytes());
    frame[28..30].copy_from_slice(&low.to_be_bytes());
    for at in [18, 38] {
        frame[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
    }
}

#[test]
fn established_transfer_survives_a_flood_from_a_million_sources() {
    const SOURCES: u32 = 1_000_000;
    let testbed = Testbed::with_approved_connections();
    let servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let content = vec![0x5a; 100_000_000];
    for server in &servers {
        fs::write(server.root().join("large"), &content).expect("a file");
    }
    let client = (CLIENT.parse().expect("an address"), 40_000);
    let endpoint = (ENDPOINT.parse().expect("an address"), 80);
    let mut template = tcp(client, endpoint).syn(0);
    template.to = parse_mac(&interface_mac(&testbed, "gw-a"));
    // Source, identification and sequence number are zero in one's complement (0 or 0xffff) while the checksums are
    // computed.
    let template = template.edit_ipv4(|ip| {
        ip.source = std::net::Ipv4Addr::UNSPECIFIED;
        ip.id = 0xffff;
    });
    let mut frame = template.with_flags(2, 0xffff_0000, 0).bytes(false);
    let (stop, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let flood = {
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        testbed.a.spawn(move || {
            let sender = PacketSocket::open().expect("a socket");
            let ifindex = nix::net::if_::if_nametoindex("eth0").expect("an interface");
            let mut number = 0;
            while number < SOURCES || !stop.load(Ordering::Relaxed) {
                patch_source(&mut frame, number % (1 << 24));
                // Sending fails while the interface's queue is full.
                if sender.send(ifindex, &frame).is_ok() {
                    number += 1;
                    sent.store(number, Ordering::Relaxed);
                }
            }
        })
    };
    wait::until_true("the flood to start", || {
        sent.load(Ordering::Relaxed) > 10_000
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().display();
    // The download uses the other consumer's endpoint of the same service.
    let mut download = testbed.b.command_line(&format!(
        "curl -sSf -m 100 --limit-rate 20M -o {path} http://{ENDPOINT}/large"
    ));
    let output = run(&mut download, std::time::Duration::from_secs(120)).expect("a download");
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("the flood");
    assert!(
        output.status.success(),
        "the download failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        fs::read(&file).expect("a file") == content,
        "the received file differs from the served one"
    );
    let status = testbed.agent.json("status");
    assert!(sent.load(Ordering::Relaxed) >= SOURCES);
    // The flood reached the data path and opened flows.
    let opened =
        testbed.agent.json("endpoint show a/web")["status"]["counters"]["flows_opened"].as_u64();
    assert!(opened > Some(200_000), "{opened:?} flows opened: {status}");
}

#[test]
fn malformed_scapy_frames_are_dropped_and_counted() {
    let testbed = Testbed::with_approved_connections();
    testbed.a.enable_ipv6("eth0", &["fd00::5"]);
    testbed.host.enable_ipv6("gw-p", &[]);
    testbed.provider.enable_ipv6("eth0", &["fd00:1::10"]);
    testbed.agent.cli(
        "service create shop/web6 --network net --port 443 --port 53/udp --backend fd00:1::10 \
         --nat fd00:1::40/124 --visibility * --auto-approval *",
    );
    testbed
        .agent
        .cli("endpoint create a/web6 --network net --address fd00::100 --service shop/web6");
    // Returns the number of all packets that the gateway received, and of those that it forwarded.
    let total = || {
        let status = testbed.agent.json("status");
        let sum = |value: &serde_json::Value| -> u64 {
            let counts = value.as_object().expect("an object");
            counts.values().filter_map(serde_json::Value::as_u64).sum()
        };
        let statistics = &status["statistics"];
        let number = |name: &str| statistics[name].as_u64().expect("a number");
        (
            sum(&status["drops"])
                + number("local_replies")
                + number("forwarded")
                + number("passed_to_host"),
            number("forwarded"),
        )
    };
    // Enabling IPv6 makes the hosts send unsolicited messages. They repeat them at intervals of less than 500 ms, so
    // that unchanged counters mean that the last one was sent.
    let before = wait::until("the counters to stand still", wait::DEFAULT_TIMEOUT, || {
        let before = total();
        std::thread::sleep(std::time::Duration::from_millis(500));
        (before == total()).then_some(before)
    });
    // Debian's package of Scapy is for Debian's own Python.
    let mut scapy = testbed.a.command("/usr/bin/python3");
    scapy.args(["-c", include_str!("scapy_fuzz.py"), "eth0"]);
    scapy.args([&interface_mac(&testbed, "gw-a"), ENDPOINT, "fd00::100"]);
    let sent: u64 = succeed(&mut scapy).trim().parse().expect("a number");
    assert!(sent > 400, "{sent}");
    let after = wait::until("every frame to be counted", wait::DEFAULT_TIMEOUT, || {
        Some(total()).filter(|now| now.0 - before.0 >= sent)
    });
    assert_eq!(after.1, before.1, "malformed frames were forwarded");
    for (reason, sent) in [("arp_invalid", 6), ("neighbour_message_invalid", 21)] {
        assert_eq!(testbed.agent.drop_count(reason), sent, "{reason}");
    }
    // The client's stack may answer the gateway's rejects. Nothing else is sent.
    let counted = after.0 - before.0;
    assert!(
        (sent..sent + 100).contains(&counted),
        "{counted} frames counted, {sent} sent: {}",
        testbed.agent.cli("status")
    );
    assert!(
        !testbed.agent.log().contains("ERROR"),
        "{}",
        testbed.agent.log()
    );
    // Valid requests are still forwarded.
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    succeed(
        &mut testbed
            .a
            .command_line(&format!("curl -sSf -m 10 http://{ENDPOINT}/name")),
    );
}
