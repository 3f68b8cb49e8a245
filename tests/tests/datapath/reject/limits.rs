//! The limit of rejects, and faults of the kernel that only the native platform can simulate.

use super::*;
use crate::Case;
use gateway_common::{
    DropReason, Verdict,
    drop_reason::Attribution,
    maps::{AddressKey, Statistic},
};
use std::net::IpAddr;
use tests::{
    datapath::differential::{
        CLIENT, DifferentialHarness, ENDPOINT, HTTPS, NAT, PENDING, Side, tcp, udp,
    },
    packet::Packet,
};

/// Sends 40 packets through the native data path, and returns how many were answered.
#[track_caller]
fn count_answered(harness: &mut DifferentialHarness, side: Side, packets: &[Packet]) -> usize {
    let verdicts = (0..40).map(|n| harness.send_native(side, &packets[n % packets.len()]));
    let is_answer =
        |verdict: &Verdict| matches!(verdict, Verdict::TcpReset(_) | Verdict::IcmpError(_));
    verdicts.filter(is_answer).count()
}

pub(super) const CASES: &[Case] = &[
    ("the number of rejects a second is limited", |harness| {
        // Ten rejects a second, on a harness whose native clock is set.
        harness.native_maps().reject_cost = 100_000_000;
        let stray = tcp(CLIENT_SOCKET, WEB).ack(1, 1);
        let answered = |harness: &mut DifferentialHarness| -> usize {
            let verdicts = (0..40).map(|_| harness.send_native(Side::A, &stray));
            let resets = verdicts.filter(|verdict| {
                let (reset, silent) = (
                    matches!(
                        verdict,
                        Verdict::TcpReset(Attribution {
                            reason: DropReason::NoFlow,
                            ..
                        })
                    ),
                    matches!(
                        verdict,
                        Verdict::Drop(Attribution {
                            reason: DropReason::NoFlow,
                            ..
                        })
                    ),
                );
                assert!(reset || silent, "{verdict:?}");
                reset
            });
            resets.count()
        };
        assert_eq!(answered(harness), 10, "a second's worth at once");
        assert_eq!(answered(harness), 0, "and no more in that moment");
        harness.native_maps().extra_nanoseconds += 300_000_000;
        assert_eq!(answered(harness), 3, "then as time goes by");
        harness.native_maps().extra_nanoseconds += 60_000_000_000;
        assert_eq!(
            answered(harness),
            10,
            "and never more than a second's worth"
        );
        let suppressed = harness.native_maps().statistics[&Statistic::RejectsSuppressed];
        assert_eq!(suppressed, 4 * 40 - 23);
    }),
    (
        "a port scan does not end path MTU discovery, nor the reverse",
        |harness| {
            harness.native_maps().reject_cost = 100_000_000;
            let flow = harness.connect(40_001);
            let refused = [
                tcp(CLIENT_SOCKET, (ENDPOINT, 81)).syn(1),
                udp(CLIENT_SOCKET, (ENDPOINT, 54), b"x"),
            ];
            let too_big = flow.client_ack().with_payload(&[7; 1_500]);
            assert_eq!(count_answered(harness, Side::A, &refused), 10);
            assert_eq!(
                count_answered(harness, Side::A, std::slice::from_ref(&too_big)),
                10
            );
            assert_eq!(count_answered(harness, Side::A, &refused), 0);
            harness.native_maps().extra_nanoseconds += 60_000_000_000;
            assert_eq!(
                count_answered(harness, Side::A, std::slice::from_ref(&too_big)),
                10
            );
            assert_eq!(count_answered(harness, Side::A, &refused), 10);
            // Both are counted as suppressed.
            let suppressed = harness.native_maps().statistics[&Statistic::RejectsSuppressed];
            assert_eq!(suppressed, 5 * 40 - 40);
        },
    ),
    (
        "unapproved connections and another endpoint have budgets of their own",
        |harness| {
            harness.native_maps().reject_cost = 100_000_000;
            let pending = [tcp(CLIENT_SOCKET, (PENDING, HTTPS)).syn(1)];
            let other = [tcp(CLIENT_SOCKET, (ENDPOINT, 81)).syn(1)];
            assert_eq!(count_answered(harness, Side::A, &pending), 10);
            assert_eq!(count_answered(harness, Side::A, &other), 10);
            assert_eq!(count_answered(harness, Side::A, &pending), 0);
            let other = other.map(|packet| packet.sent_to(Side::B));
            assert_eq!(count_answered(harness, Side::B, &other), 10);
        },
    ),
    (
        "unsolicited packets to the SNAT addresses of different providers have budgets of their own",
        |harness| {
            let maps = harness.native_maps();
            maps.reject_cost = 100_000_000;
            // Each network is a provider's: it has an SNAT address.
            let networks: Vec<u32> = maps.attachments.values().map(|a| a.network).collect();
            let address = gateway_common::IpAddress::from(IpAddr::V4(NAT));
            let found = maps
                .addresses
                .iter()
                .find(|(key, _)| key.address == address);
            let snat = *found.expect("the address").1;
            for network in networks {
                maps.addresses.insert(AddressKey { network, address }, snat);
            }
            for side in [Side::Provider, Side::A, Side::B] {
                let stray = tcp((CLIENT, 8_443), (NAT, 5_000)).ack(1, 1).sent_to(side);
                let stray = [stray];
                assert_eq!(count_answered(harness, side, &stray), 10, "{side:?}");
                assert_eq!(count_answered(harness, side, &stray), 0, "{side:?}");
            }
        },
    ),
    // Conditions that can't be produced in the kernel, or not at the right moment, are native only.
    (
        "a reject whose buffer can't be adjusted is dropped",
        |harness| {
            harness.native_maps().helpers_fail = true;
            let stray = tcp(CLIENT_SOCKET, WEB).ack(1, 1).with_payload(&[7; 100]);
            expect_native_reject(harness, &stray, DropReason::BufferAdjustFailed);
            let elsewhere = udp(CLIENT_SOCKET, (ENDPOINT, 54), b"x");
            expect_native_reject(harness, &elsewhere, DropReason::BufferAdjustFailed);
        },
    ),
    (
        "a packet whose offloaded checksum can't be completed is dropped",
        |harness| {
            harness.native_maps().helpers_fail = true;
            let syn = tcp(CLIENT_SOCKET, WEB).syn(1).bytes(true);
            let verdict = harness.send_native_bytes(Side::A, &syn);
            assert!(
                matches!(
                    verdict,
                    Verdict::Drop(Attribution {
                        reason: DropReason::ChecksumOffloadFailed,
                        ..
                    })
                ),
                "{verdict:?}"
            );
        },
    ),
    (
        "a backend slot of another resource is not selected",
        |harness| {
            for backend in harness.native_maps().backends.values_mut() {
                backend.resource ^= 1;
            }
            expect_native_reject(
                harness,
                &tcp(CLIENT_SOCKET, WEB).syn(1),
                DropReason::ConfigRace,
            );
        },
    ),
    (
        "an SNAT address of another service is not used",
        |harness| {
            for nat in harness.native_maps().nat_addresses.values_mut() {
                nat.service ^= 1;
            }
            expect_native_reject(
                harness,
                &tcp(CLIENT_SOCKET, WEB).syn(1),
                DropReason::ConfigRace,
            );
        },
    ),
    (
        "without an SNAT address of the backend's family no flow is opened",
        |harness| {
            for port in harness.native_maps().ports.values_mut() {
                port.nat_size_v4 = 0;
            }
            let verdict = harness.send_native(Side::A, &tcp(CLIENT_SOCKET, WEB).syn(1));
            assert!(
                matches!(
                    verdict,
                    Verdict::TcpReset(Attribution {
                        reason: DropReason::FamilyMismatch,
                        ..
                    })
                ),
                "{verdict:?}"
            );
        },
    ),
];
