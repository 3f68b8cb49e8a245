//! Extension headers and lengths.

use super::*;
use crate::Case;
use gateway_common::DropReason;
use tests::{
    datapath::differential::{Side, tcp_v6},
    packet::{Ipv6, Transport},
};

pub(super) const CASES: &[Case] = &[
    ("extension headers are walked and forwarded", |harness| {
        for extensions in [
            vec![extension_header(60, 8)],
            vec![extension_header(0, 8), extension_header(43, 16)],
            vec![
                extension_header(0, 8),
                extension_header(60, 8),
                extension_header(43, 24),
                extension_header(60, 8),
            ],
        ] {
            harness.reset();
            let bytes: usize = extensions.iter().map(|(_, bytes)| bytes.len()).sum();
            let syn = tcp_v6(CLIENT, WEB)
                .syn(1)
                .edit_ipv6(|ip| ip.extensions = extensions);
            let out = harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            // The parser does not walk extension headers, so the TCP segment is parsed here.
            match &out.ipv6().transport {
                Transport::Other(_, body) => {
                    let mut plain = out.ipv6().clone();
                    plain.transport = Transport::Other(6, body[bytes..].to_vec());
                    Ipv6::parse(&plain.bytes(false))
                        .expect("a TCP segment with the right checksum");
                }
                other => panic!("{other:?}"),
            }
        }
    }),
    (
        "a segment behind extension headers is answered with a reset without them",
        |harness| {
            let stray = tcp_v6(CLIENT, WEB)
                .ack(77, 4_711)
                .with_payload(&[0xee; 200]);
            let stray = stray.edit_ipv6(|ip| ip.extensions = vec![extension_header(43, 16)]);
            let out = harness.send(Side::A, &stray);
            assert_eq!(out.expect_tcp_reset(DropReason::NoFlow).sequence, 4_711);
            assert_eq!(out.frame.len(), 74);
        },
    ),
    ("a fifth extension header is dropped", |harness| {
        let extensions = vec![extension_header(60, 8); 5];
        let syn = tcp_v6(CLIENT, WEB)
            .syn(1)
            .edit_ipv6(|ip| ip.extensions = extensions);
        harness
            .send(Side::A, &syn)
            .expect_dropped(DropReason::ExtensionHeaders);
    }),
    (
        "an extension header that is longer than the packet is malformed",
        |harness| {
            let mut long = extension_header(60, 8);
            long.1[1] = 200;
            let syn = tcp_v6(CLIENT, WEB)
                .syn(1)
                .edit_ipv6(|ip| ip.extensions = vec![long]);
            harness
                .send(Side::A, &syn)
                .expect_dropped(DropReason::Malformed);
        },
    ),
    (
        "an atomic fragment is forwarded, behind other extension headers too (RFC 6946)",
        |harness| {
            for extensions in [
                vec![extension_header(44, 8)],
                vec![extension_header(60, 8), extension_header(44, 8)],
            ] {
                let syn = tcp_v6(CLIENT, WEB)
                    .syn(1)
                    .edit_ipv6(|ip| ip.extensions = extensions);
                harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
            }
        },
    ),
    (
        "no next header and unsupported protocols are dropped",
        |harness| {
            for protocol in [1, 41, 47, 50, 51, 59, 132] {
                let transport = Transport::Other(protocol, vec![0; 24]);
                let packet = tcp_v6(CLIENT, WEB).edit_ipv6(|ip| ip.transport = transport);
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::ProtocolUnsupported);
            }
        },
    ),
    (
        "lengths that contradict the frame are truncated or malformed",
        |harness| {
            let frame = tcp_v6(CLIENT, WEB).syn(1).bytes(false);
            for end in [15, 53, 54, 60, 73] {
                harness
                    .send_bytes(Side::A, &frame[..end])
                    .expect_dropped(DropReason::Truncated);
            }
            let mut empty = frame.clone();
            (empty[18], empty[19]) = (0, 0);
            harness
                .send_bytes(Side::A, &empty)
                .expect_dropped(DropReason::Malformed);
            let mut huge = frame.clone();
            (huge[18], huge[19]) = (0xff, 0xff);
            harness
                .send_bytes(Side::A, &huge)
                .expect_dropped(DropReason::Malformed);
            let mut version = frame;
            version[14] = 0x40;
            harness
                .send_bytes(Side::A, &version)
                .expect_dropped(DropReason::Malformed);
        },
    ),
];
