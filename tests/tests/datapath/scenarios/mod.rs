//! Cases that apply to IPv4, IPv6, NAT46 and NAT64 alike. Each is run in all four scenarios.

mod backends;
mod errors;
mod fragments;
mod identification;
mod limits;
mod moved;
mod packet_size;
mod quoted_fragments;
mod rejects;
mod reselect;
mod reuse;
mod tcp;
mod udp;

use tests::{
    datapath::{
        differential::{DifferentialHarness, Side},
        scenario::{ProviderFlow, Scenario},
    },
    packet::Packet,
};

use crate::run_scenarios;

/// Sends a request, and returns its flow and the forwarded packet.
#[track_caller]
fn open_udp_flow(harness: &mut DifferentialHarness, scenario: Scenario) -> (ProviderFlow, Packet) {
    let sent = harness.send(Side::A, &scenario.client_datagram(b"question"));
    let flow = scenario.expect_forwarded_to_service(&sent, 53);
    (flow, sent.expect_forwarded(Side::Provider).packet)
}

/// Returns type and code of port unreachable in a family.
const fn port_unreachable(v4: bool) -> (u8, u8) {
    if v4 { (3, 3) } else { (1, 4) }
}

/// Returns a payload whose 16-bit words are all different.
fn payload_of(length: usize) -> Vec<u8> {
    (0..length / 2)
        .flat_map(|n| u16::try_from(n).expect("short").to_be_bytes())
        .collect()
}

/// Sends packets that must all be forwarded.
#[track_caller]
fn send_all_expect_forwarded(
    harness: &mut DifferentialHarness,
    from: Side,
    to: Side,
    packets: &[Packet],
) -> Vec<Packet> {
    let sent = packets
        .iter()
        .map(|p| harness.send(from, p).expect_forwarded(to).packet);
    sent.collect()
}

#[test]
fn packets_are_forwarded_in_every_scenario() {
    run_scenarios(
        &[
            tcp::CASES,
            packet_size::CASES,
            rejects::CASES,
            udp::CASES,
            fragments::CASES,
        ]
        .concat(),
    );
}

#[test]
fn replies_follow_a_client_that_has_moved() {
    run_scenarios(moved::CASES);
}

#[test]
fn flows_leave_backends_that_take_no_flows() {
    run_scenarios(reselect::CASES);
}

#[test]
fn connections_are_judged_by_their_own_numbers() {
    run_scenarios(reuse::CASES);
}
