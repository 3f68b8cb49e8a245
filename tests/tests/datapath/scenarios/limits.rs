//! Limits of an endpoint. Rate limit times are set far ahead, so that the clock does not matter.

use gateway_common::{DropReason, flow::FlowCount, maps::ConnectionUsage};
use serde_json::json;
use tests::{
    datapath::{
        differential::{BACKEND_MAC, Side},
        scenario::Scenario,
    },
    packet::builders::{icmp_error, udp_datagram},
};

use super::{open_udp_flow, port_unreachable};
use crate::{ScenarioCase, run_scenarios};

const CASES: &[ScenarioCase] = &[
    (
        "the flow limit of an endpoint is enforced",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| spec["connection_limit"] = 2.into());
            scenario.connect(harness);
            let out = harness.send(Side::A, &scenario.client_datagram(b"x"));
            scenario.expect_forwarded_to_service(&out, 53);
            let other = (scenario.client_ip(), 40_001).into();
            let third = udp_datagram(other, scenario.dns_socket(), b"x");
            harness
                .send(Side::A, &third)
                .expect_dropped(DropReason::FlowLimit);
            // Open flows are still forwarded, and a closed flow frees its share.
            harness
                .send(Side::A, &scenario.client_datagram(b"x"))
                .expect_forwarded(Side::Provider);
            harness.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    flows: FlowCount::from_bits(1),
                    ..ConnectionUsage::default()
                },
            );
            harness
                .send(Side::A, &third)
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "the rate of new flows is limited, and open flows are not",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| {
                spec["new_connection_rate"] = 10.into()
            });
            let out = harness.send(Side::A, &scenario.client_datagram(b"x"));
            scenario.expect_forwarded_to_service(&out, 53);
            harness.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    new_flow_meter: u64::MAX / 2,
                    ..ConnectionUsage::default()
                },
            );
            harness
                .send(Side::A, &scenario.client_segment().syn(1))
                .expect_dropped(DropReason::NewFlowRate);
            harness
                .send(Side::A, &scenario.client_datagram(b"x"))
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "packets beyond the rate are dropped, for each direction by itself",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| spec["packet_rate"] = 1_000.into());
            let flow = scenario.connect(harness);
            let far = u64::MAX / 2;
            harness.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    packet_meters: [far, 0],
                    ..ConnectionUsage::default()
                },
            );
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_dropped(DropReason::PacketRate);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_forwarded(Side::A);
            harness.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    packet_meters: [0, far],
                    ..ConnectionUsage::default()
                },
            );
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_forwarded(Side::Provider);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_dropped(DropReason::PacketRate);
        },
    ),
    (
        "bits beyond the rate are dropped, for each direction by itself",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| spec["bit_rate"] = 1_000_000.into());
            let flow = scenario.connect(harness);
            let far = u64::MAX / 2;
            harness.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    byte_meters: [far, far],
                    ..ConnectionUsage::default()
                },
            );
            harness
                .send(Side::A, &scenario.client_ack())
                .expect_dropped(DropReason::PacketRate);
            harness
                .send(Side::Provider, &flow.backend_ack())
                .expect_dropped(DropReason::PacketRate);
        },
    ),
    (
        "ICMP related errors are counted and rate-limited like packets",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| spec["packet_rate"] = 1_000.into());
            let (flow, left) = open_udp_flow(harness, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = icmp_error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500)
                .with_source_mac(BACKEND_MAC);
            let before = harness.forwarded_counters(scenario.endpoint_name);
            harness
                .send(Side::Provider, &refusal)
                .expect_forwarded(Side::A);
            let after = harness.forwarded_counters(scenario.endpoint_name);
            assert_eq!(after.packets_to_consumer, before.packets_to_consumer + 1);
            let far = u64::MAX / 2;
            harness.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    packet_meters: [0, far],
                    ..ConnectionUsage::default()
                },
            );
            harness
                .send(Side::Provider, &refusal)
                .expect_dropped(DropReason::PacketRate);
        },
    ),
    (
        "limits of endpoints are independent",
        |harness, scenario| {
            harness.change_service(scenario.service, |spec| spec["connection_limit"] = 1.into());
            scenario.connect(harness);
            let other = if scenario.service == "web" {
                Scenario::ALL[0]
            } else {
                Scenario::ALL[1]
            };
            let syn = other.client_segment().syn(1).sent_to(Side::B);
            harness.send(Side::B, &syn).expect_forwarded(Side::Provider);
        },
    ),
    ("a removed limit is not enforced", |harness, scenario| {
        harness.change_service(scenario.service, |spec| spec["connection_limit"] = 1.into());
        scenario.connect(harness);
        harness
            .send(Side::A, &scenario.client_datagram(b"x"))
            .expect_dropped(DropReason::FlowLimit);
        harness.change_service(scenario.service, |spec| {
            spec["connection_limit"] = json!(null)
        });
        harness
            .send(Side::A, &scenario.client_datagram(b"x"))
            .expect_forwarded(Side::Provider);
    }),
];

#[test]
fn limits_are_enforced_in_every_scenario() {
    run_scenarios(CASES);
}
