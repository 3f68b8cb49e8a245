//! IPv6: the behaviour shared with IPv4, neighbour discovery and extension headers.

mod flows;
mod headers;
mod nd_validation;
mod ndp;
mod rejects;

use std::net::Ipv6Addr;

use tests::{
    datapath::differential::{
        BACKEND_MAC, CLIENT_V6, DNS, DifferentialHarness, ENDPOINT_V6, HTTPS, Side, SocketV6,
        tcp_v6,
    },
    packet::{Content, Ipv6, Packet, Transport},
};

use crate::run_cases;

const CLIENT: SocketV6 = (CLIENT_V6, 40_000);
const WEB: SocketV6 = (ENDPOINT_V6, HTTPS);
const NAME_SERVER: SocketV6 = (ENDPOINT_V6, DNS);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Establishes a connection, and returns its SNAT socket and its backend.
#[track_caller]
fn connect(harness: &mut DifferentialHarness) -> (SocketV6, SocketV6) {
    let syn = harness.send(Side::A, &tcp_v6(CLIENT, WEB).syn(1_000));
    let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets_v6();
    let answer = tcp_v6(backend, nat)
        .with_source_mac(BACKEND_MAC)
        .syn_ack(5_000, 1_001);
    harness
        .send(Side::Provider, &answer)
        .expect_forwarded(Side::A);
    harness
        .send(Side::A, &tcp_v6(CLIENT, WEB).ack(1_001, 5_001))
        .expect_forwarded(Side::Provider);
    (nat, backend)
}

/// Returns the destination, flags and target of a neighbour advertisement.
#[track_caller]
fn advertisement(answer: &Packet) -> (Ipv6Addr, u8, Ipv6Addr) {
    match &answer.content {
        Content::Ipv6(Ipv6 {
            hop_limit: 255,
            source,
            destination,
            transport: Transport::Icmp(136, 0, rest),
            ..
        }) => {
            let octets: [u8; 16] = std::array::from_fn(|index| rest[4 + index]);
            let target = Ipv6Addr::from(octets);
            assert_eq!(*source, target);
            assert_eq!(rest[20..22], [2, 1]);
            assert_eq!(rest[22..28], answer.from);
            (*destination, rest[0], target)
        }
        _ => panic!("no advertisement:\n{answer}"),
    }
}

fn extension_header(number: u8, octets: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; octets];
    bytes[1] = u8::try_from(octets / 8 - 1).expect("a length");
    (number, bytes)
}

#[test]
fn ipv6_matches_ipv4_behaviour() {
    run_cases(&[ndp::CASES, flows::CASES, headers::CASES, rejects::CASES].concat());
}

#[test]
fn neighbour_discovery_messages_are_validated() {
    run_cases(nd_validation::CASES);
}
