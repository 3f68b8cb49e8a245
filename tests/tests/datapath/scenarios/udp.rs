//! UDP flows.

use crate::ScenarioCase;
use gateway_common::{DropReason, flow::PlaceState};
use tests::{
    datapath::{assertions::sockets_of, differential::Side},
    packet::{Transport, read::ip_parts},
};

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "a datagram and its reply are forwarded",
        |harness, scenario| {
            let out = harness.send(Side::A, &scenario.client_datagram(b"question"));
            let flow = scenario.expect_forwarded_to_service(&out, 53);
            let back = harness
                .send(Side::Provider, &flow.backend_datagram(b"answer"))
                .expect_forwarded(Side::A);
            assert_eq!(
                sockets_of(&back),
                (scenario.dns_socket(), scenario.client_socket())
            );
            harness
                .send(Side::A, &scenario.client_datagram(b"question"))
                .expect_forwarded(Side::Provider);
            assert_eq!(
                (
                    harness.flows(PlaceState::HalfOpen),
                    harness.flows(PlaceState::Established)
                ),
                (0, 1)
            );
        },
    ),
    (
        "a datagram's checksum left to hardware is completed",
        |harness, scenario| {
            for length in [0, 1, 7, 8, 511, 1_400] {
                let question = scenario.client_datagram(&vec![0x5a; length]);
                let out = harness.send_offloaded(Side::A, &question);
                let flow = scenario.expect_forwarded_to_service(&out, 53);
                harness
                    .send_offloaded(Side::Provider, &flow.backend_datagram(&vec![0xa5; length]))
                    .expect_forwarded(Side::A);
            }
        },
    ),
    (
        "a datagram without checksum is forwarded, with a checksum if IPv6 needs it (RFC 7915)",
        |harness, scenario| {
            if !scenario.is_v4() {
                harness
                    .send(
                        Side::A,
                        &scenario.client_datagram(b"x").without_udp_checksum(),
                    )
                    .expect_dropped(DropReason::Malformed);
                return;
            }
            for length in [0, 1, 8, 1_001] {
                let question = scenario
                    .client_datagram(&vec![7; length])
                    .without_udp_checksum();
                let out = harness
                    .send(Side::A, &question)
                    .expect_forwarded(Side::Provider);
                match ip_parts(&out.packet).2 {
                    Transport::Udp(udp) => assert_eq!(udp.checksummed, scenario.is_translated()),
                    other => panic!("{other:?}"),
                }
            }
        },
    ),
];
