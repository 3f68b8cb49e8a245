//! What the gateway answers itself: an address of its own behaves as a network card does.

use std::net::Ipv4Addr;

use gateway_common::DropReason;
use tests::{
    differential::{
        BACKEND_MAC, BACKENDS, CLIENT, CLIENT_MAC, ENDPOINT, NAT, PENDING, Side, arp_request, icmp,
    },
    packet::{Arp, Content, Transport},
};

use crate::{Case, run_cases};

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

const ROWS: &[Case] = &[
    (
        "ARP for an endpoint is answered with the interface's own address",
        |lab| {
            let answer = lab
                .send(Side::A, &arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)))
                .expect_reply();
            assert_eq!((answer.to, answer.from), (CLIENT_MAC, Side::A.mac()));
            let arp = Arp {
                operation: 2,
                sender: (Side::A.mac(), ENDPOINT),
                target: (CLIENT_MAC, CLIENT),
            };
            assert_eq!(answer.content, Content::Arp(arp));
        },
    ),
    (
        "ARP for an endpoint that waits for approval is answered too",
        |lab| {
            lab.send(Side::A, &arp_request(PENDING, (CLIENT_MAC, CLIENT)))
                .expect_reply();
        },
    ),
    (
        "an ARP probe is answered, which defends the address (RFC 5227)",
        |lab| {
            let probe = arp_request(ENDPOINT, (CLIENT_MAC, Ipv4Addr::UNSPECIFIED));
            lab.send(Side::A, &probe).expect_reply();
        },
    ),
    (
        "ARP for a source NAT address is answered in the provider's network",
        |lab| {
            let request = arp_request(NAT, (BACKEND_MAC, BACKENDS[0]));
            let answer = lab.send(Side::Provider, &request).expect_reply();
            assert_eq!(answer.from, Side::Provider.mac());
        },
    ),
    (
        "ARP for a source NAT address is not answered in a consumer's network",
        |lab| {
            let request = arp_request(NAT, (CLIENT_MAC, CLIENT));
            lab.send(Side::A, &request)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    (
        "ARP for an endpoint is not answered in the provider's network",
        |lab| {
            let request = arp_request(ENDPOINT, (BACKEND_MAC, BACKENDS[0]));
            lab.send(Side::Provider, &request).expect_passed(&request);
        },
    ),
    (
        "ARP for another address is dropped where the network is isolated",
        |lab| {
            let request = arp_request(ELSEWHERE, (CLIENT_MAC, CLIENT));
            lab.send(Side::A, &request)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    ("ARP for a deleted endpoint is not answered", |lab| {
        lab.delete_endpoint("a/web");
        let request = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT));
        lab.send(Side::A, &request)
            .expect_dropped(DropReason::UnknownNeighbourTarget);
        lab.send(Side::B, &request).expect_reply();
    }),
    (
        "ARP from a group address is no question of a station's",
        |lab| {
            let request = arp_request(ENDPOINT, ([1, 0, 94, 0, 0, 1], CLIENT));
            lab.send(Side::A, &request)
                .expect_dropped(DropReason::MartianSource);
        },
    ),
    (
        "an ARP answer reaches the host where it looks for backends",
        |lab| {
            let mut answer = arp_request(NAT, (BACKEND_MAC, BACKENDS[0]));
            if let Content::Arp(arp) = &mut answer.content {
                arp.operation = 2;
            }
            lab.send(Side::Provider, &answer).expect_passed(&answer);
        },
    ),
    (
        "an ARP answer does not reach the host from an isolated network",
        |lab| {
            let mut answer = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT));
            if let Content::Arp(arp) = &mut answer.content {
                arp.operation = 2;
            }
            lab.send(Side::A, &answer)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    (
        "ARP of another hardware or protocol is none of ours",
        |lab| {
            for (offset, value) in [(14, 6), (17, 1), (18, 8), (19, 16)] {
                let mut frame = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)).bytes(false);
                frame[offset] = value;
                lab.send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::UnknownNeighbourTarget);
            }
        },
    ),
    ("ARP that ends too early is dropped", |lab| {
        let frame = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)).bytes(false);
        lab.send_bytes(Side::A, &frame[..41])
            .expect_dropped(DropReason::Truncated);
    }),
    ("ping to an endpoint is answered, with a fresh TTL", |lab| {
        let ping = icmp(CLIENT, ENDPOINT, 8, 0, &[0x12, 0x34, 0, 1, b'h', b'i'])
            .edit_ipv4(|ip| ip.ttl = 3);
        let answer = lab.send(Side::A, &ping).expect_reply();
        assert_eq!((answer.to, answer.from), (CLIENT_MAC, Side::A.mac()));
        match answer.content {
            Content::Ipv4(ipv4) => {
                assert_eq!(
                    (ipv4.source, ipv4.destination, ipv4.ttl),
                    (ENDPOINT, CLIENT, 64)
                );
                let rest = vec![0x12, 0x34, 0, 1, b'h', b'i'];
                assert_eq!(ipv4.transport, Transport::Icmp(0, 0, rest));
            }
            _ => panic!("{answer}"),
        }
    }),
    (
        "ping to a source NAT address is answered in the provider's network",
        |lab| {
            let ping = icmp(BACKENDS[0], NAT, 8, 0, &[0; 4]).with_source_mac(BACKEND_MAC);
            lab.send(Side::Provider, &ping).expect_reply();
        },
    ),
    (
        "ping to another address goes nowhere from an isolated network",
        |lab| {
            lab.send(Side::A, &icmp(CLIENT, ELSEWHERE, 8, 0, &[0; 4]))
                .expect_dropped(DropReason::NoSuchEndpoint);
        },
    ),
    (
        "ping to the host's own address passes where the network is not isolated",
        |lab| {
            let ping = icmp(BACKENDS[0], Ipv4Addr::new(10, 1, 0, 1), 8, 0, &[0; 4])
                .with_source_mac(BACKEND_MAC);
            lab.send(Side::Provider, &ping).expect_passed(&ping);
        },
    ),
    (
        "an ICMP message other than an echo request is counted",
        |lab| {
            for kind in [0, 5, 13, 17] {
                let message = icmp(CLIENT, ENDPOINT, kind, 0, &[0; 4]);
                lab.send(Side::A, &message)
                    .expect_dropped(DropReason::IcmpUnsupported);
            }
        },
    ),
    (
        "ping from an address that no host can have is dropped",
        |lab| {
            for source in [
                "0.0.0.0",
                "127.0.0.1",
                "224.0.0.1",
                "255.255.255.255",
                "10.0.0.100",
            ] {
                let ping = icmp(source.parse().expect("an address"), ENDPOINT, 8, 0, &[0; 4]);
                lab.send(Side::A, &ping)
                    .expect_dropped(DropReason::MartianSource);
            }
        },
    ),
    (
        "ping that announces less than an ICMP header is malformed",
        |lab| {
            let mut frame = icmp(CLIENT, ENDPOINT, 8, 0, &[0; 4]).bytes(false);
            frame[17] = 24;
            lab.send_bytes(Side::A, &frame)
                .expect_dropped(DropReason::Malformed);
        },
    ),
];

#[test]
fn gateway_answers_for_its_local_addresses() {
    run_cases(ROWS);
}
