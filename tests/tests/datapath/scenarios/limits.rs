//! What an endpoint may use. Meters are set far ahead, so that no clock matters.

use gateway_common::{DropReason, maps::ConnectionUsage};
use serde_json::json;
use tests::{
    differential::{BACKEND_MAC, Side},
    scenario::{Scenario, datagram, error},
};

use super::{open_udp_flow, port_unreachable};
use crate::{ScenarioCase, run_scenarios};

const CASES: &[ScenarioCase] = &[
    (
        "an endpoint has no more flows than it may",
        |lab, scenario| {
            lab.change_service(scenario.service, |spec| spec["connection_limit"] = 2.into());
            scenario.connect(lab);
            let out = lab.send(Side::A, &scenario.question(b"x"));
            scenario.went_to_service(&out, 53);
            let other = (scenario.client_ip(), 40_001).into();
            let third = datagram(other, scenario.name_server(), b"x");
            lab.send(Side::A, &third)
                .expect_dropped(DropReason::FlowLimit);
            // Those it has go on, and one that ends makes room.
            lab.send(Side::A, &scenario.question(b"x"))
                .expect_forwarded(Side::Provider);
            lab.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    flows: 1,
                    ..ConnectionUsage::default()
                },
            );
            lab.send(Side::A, &third).expect_forwarded(Side::Provider);
        },
    ),
    (
        "one that opens flows too fast is held up, and its flows are not",
        |lab, scenario| {
            lab.change_service(scenario.service, |spec| {
                spec["new_connection_rate"] = 10.into()
            });
            let out = lab.send(Side::A, &scenario.question(b"x"));
            scenario.went_to_service(&out, 53);
            lab.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    new_flow_meter: u64::MAX / 2,
                    ..ConnectionUsage::default()
                },
            );
            lab.send(Side::A, &scenario.segment().syn(1))
                .expect_dropped(DropReason::NewFlowRate);
            lab.send(Side::A, &scenario.question(b"x"))
                .expect_forwarded(Side::Provider);
        },
    ),
    (
        "packets beyond the rate are counted, each way by itself",
        |lab, scenario| {
            lab.change_service(scenario.service, |spec| spec["packet_rate"] = 1_000.into());
            let flow = scenario.connect(lab);
            let far = u64::MAX / 2;
            lab.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    packet_meters: [far, 0],
                    ..ConnectionUsage::default()
                },
            );
            lab.send(Side::A, &scenario.from_client())
                .expect_dropped(DropReason::PacketRate);
            lab.send(Side::Provider, &flow.from_backend())
                .expect_forwarded(Side::A);
            lab.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    packet_meters: [0, far],
                    ..ConnectionUsage::default()
                },
            );
            lab.send(Side::A, &scenario.from_client())
                .expect_forwarded(Side::Provider);
            lab.send(Side::Provider, &flow.from_backend())
                .expect_dropped(DropReason::PacketRate);
        },
    ),
    ("and so are bits", |lab, scenario| {
        lab.change_service(scenario.service, |spec| spec["bit_rate"] = 1_000_000.into());
        let flow = scenario.connect(lab);
        let far = u64::MAX / 2;
        lab.set_usage(
            scenario.endpoint_name,
            ConnectionUsage {
                byte_meters: [far, far],
                ..ConnectionUsage::default()
            },
        );
        lab.send(Side::A, &scenario.from_client())
            .expect_dropped(DropReason::PacketRate);
        lab.send(Side::Provider, &flow.from_backend())
            .expect_dropped(DropReason::PacketRate);
    }),
    (
        "errors of others are packets like others: counted, and kept to the rate",
        |lab, scenario| {
            lab.change_service(scenario.service, |spec| spec["packet_rate"] = 1_000.into());
            let (flow, left) = open_udp_flow(lab, scenario);
            let kind = port_unreachable(scenario.provider_is_v4());
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500)
                .with_source_mac(BACKEND_MAC);
            let before = lab.forwarded_counters(scenario.endpoint_name);
            lab.send(Side::Provider, &refusal).expect_forwarded(Side::A);
            let after = lab.forwarded_counters(scenario.endpoint_name);
            assert_eq!(after.packets_to_consumer, before.packets_to_consumer + 1);
            let far = u64::MAX / 2;
            lab.set_usage(
                scenario.endpoint_name,
                ConnectionUsage {
                    packet_meters: [0, far],
                    ..ConnectionUsage::default()
                },
            );
            lab.send(Side::Provider, &refusal)
                .expect_dropped(DropReason::PacketRate);
        },
    ),
    (
        "a limit of one endpoint is not another's",
        |lab, scenario| {
            lab.change_service(scenario.service, |spec| spec["connection_limit"] = 1.into());
            scenario.connect(lab);
            let other = if scenario.service == "web" {
                Scenario::ALL[0]
            } else {
                Scenario::ALL[1]
            };
            let syn = other.segment().syn(1).sent_to(Side::B);
            lab.send(Side::B, &syn).expect_forwarded(Side::Provider);
        },
    ),
    ("a limit that is taken back is none", |lab, scenario| {
        lab.change_service(scenario.service, |spec| spec["connection_limit"] = 1.into());
        scenario.connect(lab);
        lab.send(Side::A, &scenario.question(b"x"))
            .expect_dropped(DropReason::FlowLimit);
        lab.change_service(scenario.service, |spec| {
            spec["connection_limit"] = json!(null)
        });
        lab.send(Side::A, &scenario.question(b"x"))
            .expect_forwarded(Side::Provider);
    }),
];

#[test]
fn limits_are_enforced_in_every_scenario() {
    run_scenarios(CASES);
}
