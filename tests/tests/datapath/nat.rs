//! SNAT and backend selection.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use gateway_common::{
    DropReason, Verdict,
    drop_reason::Attribution,
    flow::{FlowCount, FlowTableUsage, PlaceState},
};
use serde_json::json;
use tests::datapath::differential::{
    ALL_PORTS_ENDPOINT, BACKEND_MAC, CLIENT, DifferentialHarness, ENDPOINT, HTTPS, Side, tcp, udp,
};

use crate::{Case, run_cases};

const CASES: &[Case] = &[
    (
        "a client's socket keeps its SNAT address and port towards every server (RFC 4787, REQ-1)",
        |harness| {
            let mut sources = HashSet::new();
            for port in [53, 80, 443, 8_080, 50_000] {
                let out = harness.send(
                    Side::A,
                    &udp((CLIENT, 40_000), (ALL_PORTS_ENDPOINT, port), b"x"),
                );
                let (source, _) = out.expect_forwarded(Side::Provider).sockets();
                sources.insert(source);
            }
            assert_eq!(sources.len(), 1, "{sources:?}");
        },
    ),
    (
        "SNAT keeps the parity of the port (RFC 4787, REQ-4)",
        |harness| {
            for port in 40_000..40_100 {
                let out = harness.send(Side::A, &udp((CLIENT, port), (ENDPOINT, 53), b"x"));
                let ((_, source), _) = out.expect_forwarded(Side::Provider).sockets();
                assert_eq!(source % 2, port % 2);
            }
        },
    ),
    (
        "SNAT ports are never well-known ports (RFC 4787, REQ-3)",
        |harness| {
            for port in [1, 53, 80, 443, 1_023] {
                let out = harness.send(Side::A, &udp((CLIENT, port), (ENDPOINT, 53), b"x"));
                out.expect_forwarded(Side::Provider).expect_snat_source();
            }
        },
    ),
    (
        "a privileged port gets a privileged port where the service preserves them (RFC 4787, REQ-3a)",
        |harness| {
            harness.change_web_service(|spec| spec["preserve_privileged_ports"] = true.into());
            let source_of = |harness: &mut DifferentialHarness, client: Ipv4Addr, port| {
                let out = harness.send(Side::A, &udp((client, port), (ENDPOINT, 53), b"x"));
                out.expect_forwarded(Side::Provider).sockets()
            };
            for port in [1, 111, 511, 512, 700, 1_023] {
                let ((_, source), _) = source_of(harness, CLIENT, port);
                assert!((512..1_024).contains(&source), "{source} for {port}");
                assert_eq!(source % 2, port % 2);
            }
            for port in [1_024, 1_025, 40_000] {
                let ((_, source), _) = source_of(harness, CLIENT, port);
                assert!(source >= 1_024, "{source} for {port}");
            }
            // Clients with the same port share neither source nor range.
            let mut seen = HashSet::new();
            for host in 10..90 {
                let sockets = source_of(harness, Ipv4Addr::new(10, 0, 0, host), 800);
                assert!((512..1_024).contains(&sockets.0.1));
                assert!(seen.insert(sockets), "{sockets:?} twice");
            }
        },
    ),
    (
        "without a free privileged port the packet is dropped",
        |harness| {
            harness.change_service("every", |spec| {
                spec["preserve_privileged_ports"] = true.into();
            });
            let mut forwarded = 0;
            for host in 0..600_u16 {
                let [high, low] = host.to_be_bytes();
                let client = Ipv4Addr::new(10, 0, 1 + high, low);
                let packet = udp((client, 700), (ALL_PORTS_ENDPOINT, 53), b"x");
                if harness.run_native(Side::A, &packet).is_forwarded() {
                    forwarded += 1;
                }
            }
            assert!((256..=512).contains(&forwarded), "{forwarded}");
            let packet = udp((CLIENT, 1_024), (ALL_PORTS_ENDPOINT, 53), b"x");
            assert!(harness.run_native(Side::A, &packet).is_forwarded());
        },
    ),
    (
        "only the flow's backend reaches the client (RFC 4787, REQ-8)",
        |harness| {
            let out = harness.send(Side::A, &udp((CLIENT, 40_000), (ENDPOINT, 53), b"x"));
            let (nat, (backend, port)) = out.expect_forwarded(Side::Provider).sockets();
            let other = [10, 1, 0, 99].into();
            for from in [(backend, port + 1), (other, port), (other, 40_000)] {
                let stray = udp(from, nat, b"x").with_source_mac(BACKEND_MAC);
                harness
                    .send(Side::Provider, &stray)
                    .expect_icmp_error(DropReason::NoFlow);
            }
            let answer = udp((backend, port), nat, b"x").with_source_mac(BACKEND_MAC);
            harness
                .send(Side::Provider, &answer)
                .expect_forwarded(Side::A);
        },
    ),
    (
        "a port is found on an SNAT address of which 95 % are allocated",
        |harness| {
            // The service has one address: 19 of 20 of its ports are allocated towards the only backend.
            let taken = harness.occupy_snat_ports("every", 95);
            assert!(taken > 61_000, "{taken}");
            for port in 10_000..10_500 {
                let out = harness.send_native(
                    Side::A,
                    &udp((CLIENT, port), (ALL_PORTS_ENDPOINT, 53), b"x"),
                );
                assert!(matches!(out, Verdict::Redirect(_)), "{out:?} at {port}");
            }
        },
    ),
    (
        "with every port allocated a new flow is dropped",
        |harness| {
            harness.occupy_snat_ports("every", 100);
            let out = harness.send_native(
                Side::A,
                &udp((CLIENT, 40_000), (ALL_PORTS_ENDPOINT, 53), b"x"),
            );
            assert!(
                matches!(
                    out,
                    Verdict::Drop(Attribution {
                        reason: DropReason::SourceNatExhausted,
                        ..
                    })
                ),
                "{out:?}"
            );
            // Ports towards another backend are allocated separately.
            let out = harness.send_native(
                Side::A,
                &udp((CLIENT, 40_000), (ALL_PORTS_ENDPOINT, 54), b"x"),
            );
            assert!(matches!(out, Verdict::Redirect(_)), "{out:?}");
        },
    ),
    (
        "flows of one client have one SNAT address (RFC 4787, REQ-2)",
        |harness| {
            let mut addresses = HashSet::new();
            for port in 40_000..40_050 {
                let out = harness.send(Side::A, &tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1));
                let ((address, _), _) = out
                    .expect_forwarded(Side::Provider)
                    .expect_snat_source()
                    .sockets();
                addresses.insert(address);
            }
            assert_eq!(addresses.len(), 1);
        },
    ),
    ("clients are spread over the SNAT addresses", |harness| {
        let mut addresses = HashSet::new();
        for last in 1..60 {
            let client = ([10, 0, 0, last].into(), 40_000);
            let out = harness.send(Side::A, &tcp(client, (ENDPOINT, HTTPS)).syn(1));
            let ((address, _), _) = out
                .expect_forwarded(Side::Provider)
                .expect_snat_source()
                .sockets();
            addresses.insert(address);
        }
        assert!(addresses.len() > 8, "{} of 16", addresses.len());
    }),
    (
        "no two flows to a backend share an SNAT address and port",
        |harness| {
            let mut taken = HashSet::new();
            for port in 10_000..10_400 {
                let out = harness.send(Side::A, &tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1));
                let ends = out.expect_forwarded(Side::Provider).sockets();
                assert!(taken.insert(ends), "{ends:?} twice");
            }
        },
    ),
    ("flows are spread over the backends by weight", |harness| {
        harness.set_backends(&json!([
            { "address": "10.1.0.10", "weight": 3 },
            { "address": "10.1.0.11", "weight": 1 },
        ]));
        let mut counts: HashMap<_, u32> = HashMap::new();
        for port in 10_000..10_800 {
            let out = harness.send(Side::A, &tcp((CLIENT, port), (ENDPOINT, HTTPS)).syn(1));
            let (_, (backend, _)) = out.expect_forwarded(Side::Provider).sockets();
            *counts.entry(backend).or_default() += 1;
        }
        let heavy = counts[&[10, 1, 0, 10].into()];
        assert!(
            (540..660).contains(&heavy),
            "{heavy} of 800, where 600 are expected"
        );
    }),
    (
        "with affinity all flows of a client go to one backend, and clients are spread",
        |harness| {
            harness.change_web_service(|spec| spec["session_affinity"] = "client_address".into());
            let mut chosen = HashSet::new();
            for last in 1..30 {
                let mut backends = HashSet::new();
                for port in 40_000..40_010 {
                    let client = ([10, 0, 0, last].into(), port);
                    let out = harness.send(Side::A, &tcp(client, (ENDPOINT, HTTPS)).syn(1));
                    let (_, (backend, _)) = out.expect_forwarded(Side::Provider).sockets();
                    backends.insert(backend);
                }
                assert_eq!(backends.len(), 1, "10.0.0.{last}: {backends:?}");
                chosen.extend(backends);
            }
            assert_eq!(chosen.len(), 2, "{chosen:?}");
        },
    ),
    ("an allocated port is skipped", |harness| {
        // The service on every port has one address and one backend: with enough flows, two tuples hash to the same
        // port.
        let mut taken = HashSet::new();
        for client in 1..120 {
            for port in [1_111, 2_222, 3_333, 4_444, 5_555] {
                let client = ([10, 0, 0, client].into(), port);
                if client.0 == ALL_PORTS_ENDPOINT {
                    continue;
                }
                let out = harness.send(Side::A, &udp(client, (ALL_PORTS_ENDPOINT, 7), b"x"));
                let (nat, _) = out.expect_forwarded(Side::Provider).sockets();
                assert!(taken.insert(nat), "{nat:?} twice");
            }
        }
    }),
    ("a full flow table drops the new flow only", |harness| {
        let flow = harness.connect(40_000);
        // The kernel's count can't be set, so the case is native only.
        let usage = |established| FlowTableUsage {
            established,
            ..FlowTableUsage::default()
        };
        let size = harness.native_maps().flow_table_size;
        harness
            .native_maps()
            .flow_table_usage
            .set(0, usage(FlowCount::from_bits(size)));
        let syn = tcp((CLIENT, 41_000), (ENDPOINT, HTTPS)).syn(1);
        let verdict = harness.send_native(Side::A, &syn);
        assert!(
            matches!(
                verdict,
                Verdict::Drop(Attribution {
                    reason: DropReason::FlowTableFull,
                    ..
                })
            ),
            "{verdict:?}"
        );
        harness
            .native_maps()
            .flow_table_usage
            .set(0, usage(FlowCount::from_bits(1)));
        harness
            .send(Side::A, &flow.client_ack())
            .expect_forwarded(Side::Provider);
        assert_eq!(harness.flows(PlaceState::Established), 1);
    }),
];

#[test]
fn snat_addresses_ports_and_backends_are_selected() {
    run_cases(CASES);
}
