//! Malformed packets: bytes are changed, removed or added at random.
//!
//! Both platforms must agree on each. Only packets of an endpoint's consumer or of a flow's backend may be forwarded.

use gateway_common::Verdict;
use tests::{
    datapath::differential::{
        BACKEND_MAC, CLIENT, CLIENT_MAC, CLIENT_V6, DNS, ENDPOINT, ENDPOINT_V6, HTTPS, Side,
        arp_request, icmp, icmp_v6, neighbour_solicitation, tcp, tcp_v6, udp, udp_v6, with_harness,
    },
    packet::{Content, Packet},
    random::Random,
};

/// Returns valid packets of every kind.
fn valid_packets() -> Vec<Packet> {
    let (client, client_v6) = ((CLIENT, 40_000), (CLIENT_V6, 40_000));
    let (web, web_v6) = ((ENDPOINT, HTTPS), (ENDPOINT_V6, HTTPS));
    let extended = |number: u8| {
        tcp_v6(client_v6, web_v6)
            .syn(1)
            .edit_ipv6(|ip| ip.extensions = vec![(0, vec![0; 8]), (number, vec![0; 8])])
    };
    vec![
        tcp(client, web).syn(1),
        tcp(client, web).ack(2, 2).with_payload(b"some data"),
        udp(client, (ENDPOINT, DNS), b"question"),
        icmp(CLIENT, ENDPOINT, 8, 0, b"1234ping"),
        arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)),
        tcp_v6(client_v6, web_v6).syn(1),
        tcp_v6(client_v6, web_v6)
            .ack(2, 2)
            .with_payload(b"some data"),
        udp_v6(client_v6, (ENDPOINT_V6, DNS), b"question"),
        icmp_v6(CLIENT_V6, ENDPOINT_V6, 128, b"1234ping"),
        neighbour_solicitation(ENDPOINT_V6, CLIENT_V6),
        extended(60),
        extended(44),
        priority_tagged(&tcp(client, web).syn(1)),
        priority_tagged(&arp_request(ENDPOINT, (CLIENT_MAC, CLIENT))),
        priority_tagged(&neighbour_solicitation(ENDPOINT_V6, CLIENT_V6)),
    ]
}

/// Returns the packet with a priority tag.
fn priority_tagged(packet: &Packet) -> Packet {
    let frame = packet.bytes(false);
    Packet {
        content: Content::Other(0x8100, [&[0xa0, 0], &frame[12..]].concat()),
        ..packet.clone()
    }
}

#[test]
fn native_and_kernel_agree_on_malformed_packets() {
    const ROUNDS: usize = 10_000;
    let forwarded = with_harness(|harness| {
        let mut numbers = Random::new(0x2545_f491_4f6c_dd1d);
        let packets = valid_packets();
        let mut forwarded = 0;
        for _ in 0..ROUNDS {
            let side = [Side::A, Side::B, Side::Provider][numbers.below(3)];
            let mut packet = packets[numbers.below(packets.len())].clone();
            if !matches!(packet.content, Content::Arp(_)) && packet.to == Side::A.mac() {
                packet = packet.sent_to(side);
            }
            if side == Side::Provider {
                packet = packet.with_source_mac(BACKEND_MAC);
            }
            let mut frame = packet.bytes(numbers.below(4) == 0);
            for _ in 0..numbers.below(4) {
                let offset = numbers.below(frame.len());
                frame[offset] = match numbers.below(3) {
                    0 => numbers.byte(),
                    1 => 0,
                    _ => frame[offset] ^ (1 << numbers.below(8)),
                };
            }
            match numbers.below(8) {
                0 => frame.truncate(14 + numbers.below(frame.len() - 14)),
                1 => frame.resize(frame.len() + numbers.below(40), 0xff),
                _ => {}
            }
            let result = harness.send_bytes(side, &frame);
            if let Verdict::Redirect(_) = result.verdict {
                forwarded += 1;
                // The provider has no flow to reply on, so every forwarded packet is a consumer's.
                assert_ne!(side, Side::Provider, "{frame:02x?}");
                let is_tagged = frame[12..14] == [0x81, 0x00];
                let packet = &frame[if is_tagged { 16 } else { 12 }..];
                let destination = match packet[..2] {
                    [0x08, 0x00] => packet[18..22] == ENDPOINT.octets(),
                    _ => packet[26..42] == ENDPOINT_V6.octets(),
                };
                assert!(destination, "to no endpoint: {frame:02x?}");
            }
        }
        forwarded
    });
    // The test is valid only if neither nearly all nor nearly no packets are forwarded.
    assert!(
        (ROUNDS / 20..ROUNDS).contains(&forwarded),
        "{forwarded} of {ROUNDS} forwarded"
    );
}
