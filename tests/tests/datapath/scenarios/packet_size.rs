//! MSS clamping, and packets larger than the MTU.

use crate::ScenarioCase;
use gateway_common::DropReason;
use tests::{datapath::differential::Side, packet::read::tcp_of};

pub(super) const CASES: &[ScenarioCase] = &[
    (
        "an MSS that does not fit both networks is clamped",
        |harness, scenario| {
            let max_mss: u16 = if scenario.is_v4() && scenario.provider_is_v4() {
                1_460
            } else {
                1_440
            };
            for options in [
                vec![2, 4, 0xff, 0xff, 4, 2, 1, 1],
                vec![1, 2, 4, 0x23, 0x28, 1, 4, 2],
                vec![3, 3, 7, 2, 4, 0x05, 0xdc, 0],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                let found = &tcp_of(&out.packet).options;
                let at = options
                    .windows(2)
                    .position(|pair| pair == [2, 4])
                    .expect("the option");
                assert_eq!(found[at + 2..at + 4], max_mss.to_be_bytes());
                let rest = |bytes: &[u8]| [&bytes[..at + 2], &bytes[at + 4..]].concat();
                assert_eq!(rest(found), rest(&options));
            }
        },
    ),
    (
        "an MSS that fits is kept, and so are other options",
        |harness, scenario| {
            for options in [
                vec![2, 4, 2, 0x18, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1],
                vec![30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8],
                vec![],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                assert_eq!(tcp_of(&out.packet).options, options);
            }
        },
    ),
    (
        "malformed options are forwarded unchanged",
        |harness, scenario| {
            for options in [
                vec![2, 0, 0, 0],
                vec![2, 3, 9, 9],
                vec![3, 200, 1, 1],
                vec![5, 1, 1, 1],
            ] {
                harness.reset();
                let syn = scenario.client_segment().syn(1).with_tcp_options(&options);
                let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
                assert_eq!(tcp_of(&out.packet).options, options);
            }
        },
    ),
    (
        "the largest packet that fits is forwarded, one byte more is answered with the MTU",
        |harness, scenario| {
            scenario.connect(harness);
            let (head, fits) = match (scenario.is_v4(), scenario.provider_is_v4()) {
                (true, true) => (40, 1_500),
                (true, false) => (40, 1_480),
                (false, true) => (60, 1_520),
                (false, false) => (60, 1_500),
            };
            let full = |more: usize| {
                scenario.client_ack().with_payload(&vec![
                    7;
                    usize::try_from(fits).expect("small")
                        - head
                        + more
                ])
            };
            harness
                .send(Side::A, &full(0))
                .expect_forwarded(Side::Provider);
            let error = harness
                .send(Side::A, &full(1))
                .expect_icmp_error(DropReason::PacketTooBig);
            let kind = if scenario.is_v4() { (3, 4) } else { (2, 0) };
            assert_eq!((error.kind, error.rest), (kind, fits));
            assert_eq!(
                (error.source, error.destination),
                (scenario.endpoint_ip(), scenario.client_ip())
            );
            error.expect_embedded(&full(1));
        },
    ),
    (
        "a backend's packet that is too big is answered with the MTU",
        |harness, scenario| {
            let flow = scenario.connect(harness);
            let full = |length| flow.backend_ack().with_payload(&vec![7; length]);
            let (head, fits) = match (scenario.provider_is_v4(), scenario.is_v4()) {
                (true, true) => (40, 1_500),
                (true, false) => (40, 1_480),
                (false, true) => (60, 1_520),
                (false, false) => (60, 1_500),
            };
            harness
                .send(Side::Provider, &full(fits - head))
                .expect_forwarded(Side::A);
            let out = harness.send(Side::Provider, &full(fits - head + 1));
            let error = out.expect_icmp_error(DropReason::PacketTooBig);
            assert_eq!(
                (error.source, error.destination),
                (flow.nat.ip(), flow.backend.ip())
            );
            error.expect_embedded(&full(fits - head + 1));
        },
    ),
];
