//! The limit of rejects, and faults of the kernel that only the native platform can simulate.

use super::*;
use crate::Case;
use gateway_common::{DropReason, Verdict, drop_reason::Attribution, maps::Statistic};
use tests::datapath::differential::{DifferentialHarness, ENDPOINT, Side, tcp, udp};

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
