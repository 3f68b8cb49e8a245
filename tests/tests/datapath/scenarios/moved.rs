//! Clients that move: replies go to the neighbour that the flow's newest packet came from.

use super::*;
use crate::ScenarioCase;
use gateway_common::{DropReason, flow::PlaceState};
use serde_json::json;
use tests::{
    datapath::differential::CLIENT_MAC,
    packet::{
        Mac,
        flag::{ACK, PSH, RST},
    },
};

/// MAC addresses that the client's packets come from after a move: of the same vendor, of VRRP, and another one.
const MOVED: [Mac; 3] = [
    [2, 0, 0, 0, 0, 0x77],
    [0, 0, 0x5e, 0, 1, 9],
    [0x52, 0x54, 0, 0x12, 0x34, 0x56],
];

/// Expects that a reply goes to this MAC address.
#[track_caller]
fn expect_reply_to(harness: &mut DifferentialHarness, reply: &Packet, mac: Mac) {
    harness
        .send(Side::Provider, reply)
        .expect_forwarded(Side::A)
        .expect_destination_mac(mac);
}

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "replies follow the client's newest segment, in an established connection",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let reply = flow.backend_ack().with_payload(b"answer");
            expect_reply_to(harness, &reply, CLIENT_MAC);
            for mac in [&MOVED[..], &[CLIENT_MAC]].concat() {
                let data = scenario
                    .client_ack()
                    .with_payload(b"data")
                    .with_source_mac(mac);
                for _ in 0..2 {
                    harness
                        .send(Side::A, &data)
                        .expect_forwarded(Side::Provider);
                    expect_reply_to(harness, &reply, mac);
                }
            }
            assert_eq!(harness.flows(PlaceState::Established), 1);
        },
    ),
    (
        "replies follow the client's newest datagram, half-open and established",
        |harness, scenario| {
            let (flow, _) = open_udp_flow(harness, scenario);
            let reply = flow.backend_datagram(b"answer");
            for mac in [MOVED[0], MOVED[1], CLIENT_MAC, MOVED[2]] {
                let question = scenario.client_datagram(b"more").with_source_mac(mac);
                harness
                    .send(Side::A, &question)
                    .expect_forwarded(Side::Provider);
                expect_reply_to(harness, &reply, mac);
            }
        },
    ),
    (
        "a SYN that is sent again from another MAC address is answered there",
        |harness, scenario| {
            let syn = scenario.client_segment().syn(1_000);
            let out = harness.send(Side::A, &syn);
            let flow = scenario.expect_forwarded_to_service(&out, 8_443);
            harness
                .send(Side::A, &syn.with_source_mac(MOVED[0]))
                .expect_forwarded(Side::Provider);
            let answer = flow.backend_segment().syn_ack(5_000, 1_001);
            expect_reply_to(harness, &answer, MOVED[0]);
        },
    ),
    (
        "packets that the flow does not accept don't move its replies",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let reply = flow.backend_ack().with_payload(b"answer");
            harness
                .send(Side::Provider, &reply)
                .expect_forwarded(Side::A);
            let spoofed = scenario.client_segment().with_source_mac(MOVED[0]);
            for sequence in [0, 1 << 30] {
                harness
                    .send(Side::A, &spoofed.clone().with_flags(RST, sequence, 0))
                    .expect_dropped(DropReason::ResetOutOfWindow);
                expect_reply_to(harness, &reply, CLIENT_MAC);
            }
            // Replies to such an address would reach everybody, or nobody.
            for mac in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], Side::A.mac()] {
                let data = spoofed.clone().ack(1_001, 5_001).with_source_mac(mac);
                harness
                    .send(Side::A, &data)
                    .expect_dropped(DropReason::MartianSource);
                expect_reply_to(harness, &reply, CLIENT_MAC);
            }
            // A packet that can't be forwarded says nothing about the client either.
            let expired = spoofed.clone().ack(1_001, 5_001).with_hop_limit(1);
            harness.send(Side::A, &expired);
            expect_reply_to(harness, &reply, CLIENT_MAC);
            // Another connection of the same client has a path of its own.
            let (other, _) = open_udp_flow(harness, scenario);
            harness
                .send(
                    Side::A,
                    &scenario.client_datagram(b"x").with_source_mac(MOVED[1]),
                )
                .expect_forwarded(Side::Provider);
            expect_reply_to(harness, &other.backend_datagram(b"y"), MOVED[1]);
            expect_reply_to(harness, &reply, CLIENT_MAC);
        },
    ),
    (
        "replies follow the client to another attachment of its network",
        |harness, scenario| {
            let interfaces = json!([{ "interface": "gw-a" }, { "interface": "gw-h" }]);
            harness.change_network("a/net", |network| network["attachments"] = interfaces);
            harness.set_interface_up(Side::Host, true);
            let flow = scenario.connect(harness);
            let (datagrams, _) = open_udp_flow(harness, scenario);
            for side in [Side::Host, Side::A, Side::Host] {
                let data = scenario.client_ack().add_flags(PSH | ACK);
                harness
                    .send(side, &data.with_payload(b"data").sent_to(side))
                    .expect_forwarded(Side::Provider);
                harness
                    .send(Side::Provider, &flow.backend_ack())
                    .expect_forwarded(side)
                    .expect_destination_mac(CLIENT_MAC);
                harness
                    .send(side, &scenario.client_datagram(b"x").sent_to(side))
                    .expect_forwarded(Side::Provider);
                harness
                    .send(Side::Provider, &datagrams.backend_datagram(b"y"))
                    .expect_forwarded(side);
            }
            harness.set_interface_up(Side::Host, false);
        },
    ),
];
