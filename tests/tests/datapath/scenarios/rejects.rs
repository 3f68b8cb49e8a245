//! Packets that are answered with an error, a reset or silence.

use crate::ScenarioCase;
use gateway_common::DropReason;
use tests::{
    datapath::{assertions::expect_rejected, differential::Side},
    packet::{builders::udp_datagram, flag::RST, read::hop_limit},
};

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "a packet whose TTL expires is answered with time exceeded, from either side",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let kind = |v4| if v4 { (11, 0) } else { (3, 0) };
            for left in [0, 1] {
                let there = scenario.client_ack().with_hop_limit(left);
                let error = harness
                    .send(Side::A, &there)
                    .expect_icmp_error(DropReason::TtlExpired);
                assert_eq!(
                    (error.kind, error.source),
                    (kind(scenario.is_v4()), scenario.endpoint_ip())
                );
                error.expect_embedded(&there);
                let back = flow.backend_ack().with_hop_limit(left);
                let error = harness
                    .send(Side::Provider, &back)
                    .expect_icmp_error(DropReason::TtlExpired);
                assert_eq!(
                    (error.kind, error.source),
                    (kind(scenario.provider_is_v4()), flow.nat.ip())
                );
                error.expect_embedded(&back);
            }
            let out = harness
                .send(Side::A, &scenario.client_ack().with_hop_limit(2))
                .expect_forwarded(Side::Provider);
            assert_eq!(hop_limit(&out.packet), 1);
        },
    ),
    (
        "a segment of no flow is answered with a reset",
        |harness, scenario| {
            let reset = harness
                .send(Side::A, &scenario.client_ack())
                .expect_tcp_reset(DropReason::NoFlow);
            assert_eq!((reset.flags, reset.sequence), (RST, 5_001));
        },
    ),
    (
        "a segment of no flow is dropped if unmatched_packet_action is drop",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| {
                spec["unmatched_packet_action"] = "drop".into()
            });
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_dropped(DropReason::NoFlow);
            let elsewhere = (scenario.endpoint_ip(), 54).into();
            harness
                .send(
                    Side::A,
                    &udp_datagram(scenario.client_socket(), elsewhere, b"x"),
                )
                .expect_dropped(DropReason::PortNotOffered);
        },
    ),
    (
        "both ends of a revoked TCP flow are reset at their next packet",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            harness.decide(scenario.endpoint_name, gateway::model::Decision::Reject);
            // Flows in the other family's table are looked up after the early drop.
            let reason = if scenario.name == "IPv4 to IPv6" {
                DropReason::ConnectionNotApproved
            } else {
                DropReason::ConnectionRevoked
            };
            let reset = harness
                .send(Side::A, &scenario.client_ack())
                .expect_tcp_reset(reason);
            assert_eq!(reset.sequence, 5_001);
            let reset = harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_tcp_reset(DropReason::ConnectionRevoked);
            assert_eq!(reset.sequence, 1_001);
        },
    ),
    (
        "a datagram of a revoked flow is answered with an ICMP error",
        |harness, scenario| {
            let out = harness.send(Side::A, &scenario.client_datagram(b"question"));
            let flow = scenario.expect_forwarded_to_service(&out, 53);
            harness.decide(scenario.endpoint_name, gateway::model::Decision::Reject);
            let kind = |v4| if v4 { (3, 13) } else { (1, 1) };
            let answer = flow.backend_datagram(b"answer");
            let error = harness
                .send(Side::Provider, &answer)
                .expect_icmp_error(DropReason::ConnectionRevoked);
            assert_eq!(error.kind, kind(scenario.provider_is_v4()));
            error.expect_embedded(&answer);
            let question = scenario.client_datagram(b"question");
            let error = harness
                .send(Side::A, &question)
                .expect_icmp_error(DropReason::ConnectionNotApproved);
            assert_eq!(error.kind, kind(scenario.is_v4()));
            error.expect_embedded(&question);
        },
    ),
    (
        "a flow of a departed backend is reset, and is opened again",
        |harness, scenario| {
            scenario.connect(harness);
            harness.change_service(scenario.service, |spec| {
                let backends = spec["resources"][0]["backends"]
                    .as_array_mut()
                    .expect("a list");
                backends.clear();
            });
            expect_rejected(
                &harness.send(Side::A, &scenario.client_ack()),
                DropReason::BackendRemoved,
            );
            expect_rejected(
                &harness.send(Side::A, &scenario.client_segment().syn(9)),
                DropReason::NoBackend,
            );
        },
    ),
];
