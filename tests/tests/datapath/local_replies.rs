//! Local replies: ARP and ping for local addresses.

use std::net::Ipv4Addr;

use gateway_common::{DropReason, Verdict};
use tests::{
    datapath::differential::{
        BACKEND_MAC, BACKENDS, CLIENT, CLIENT_MAC, ENDPOINT, NAT, PENDING, Side, arp_request, icmp,
    },
    packet::{Arp, Content, Packet, Transport},
};

use crate::{Case, run_cases};

const UNKNOWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

fn set_operation(packet: &mut Packet, operation: u16) {
    if let Content::Arp(arp) = &mut packet.content {
        arp.operation = operation;
    }
}

const CASES: &[Case] = &[
    (
        "ARP for an endpoint is answered with the interface's own address",
        |harness| {
            let answer = harness
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
        "ARP for an endpoint whose connection is pending is answered",
        |harness| {
            harness
                .send(Side::A, &arp_request(PENDING, (CLIENT_MAC, CLIENT)))
                .expect_reply();
        },
    ),
    (
        "an ARP probe is answered, which defends the address (RFC 5227)",
        |harness| {
            let probe = arp_request(ENDPOINT, (CLIENT_MAC, Ipv4Addr::UNSPECIFIED));
            harness.send(Side::A, &probe).expect_reply();
        },
    ),
    (
        "ARP for an SNAT address is answered in the provider's network",
        |harness| {
            let request = arp_request(NAT, (BACKEND_MAC, BACKENDS[0]));
            let answer = harness.send(Side::Provider, &request).expect_reply();
            assert_eq!(answer.from, Side::Provider.mac());
        },
    ),
    (
        "ARP for an SNAT address is not answered in a consumer's network",
        |harness| {
            let request = arp_request(NAT, (CLIENT_MAC, CLIENT));
            harness
                .send(Side::A, &request)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    (
        "ARP for an endpoint is not answered in the provider's network",
        |harness| {
            let request = arp_request(ENDPOINT, (BACKEND_MAC, BACKENDS[0]));
            harness
                .send(Side::Provider, &request)
                .expect_passed(&request);
        },
    ),
    (
        "ARP for another address is dropped if the network is isolated",
        |harness| {
            let request = arp_request(UNKNOWN_ADDRESS, (CLIENT_MAC, CLIENT));
            harness
                .send(Side::A, &request)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    ("ARP for a deleted endpoint is not answered", |harness| {
        harness.delete_endpoint("a/web");
        let request = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT));
        harness
            .send(Side::A, &request)
            .expect_dropped(DropReason::UnknownNeighbourTarget);
        harness.send(Side::B, &request).expect_reply();
    }),
    ("ARP from a multicast MAC address is dropped", |harness| {
        let request = arp_request(ENDPOINT, ([1, 0, 94, 0, 0, 1], CLIENT));
        harness
            .send(Side::A, &request)
            .expect_dropped(DropReason::MartianSource);
    }),
    (
        "an ARP reply passes to the host in the provider's network",
        |harness| {
            let mut answer = arp_request(NAT, (BACKEND_MAC, BACKENDS[0]));
            if let Content::Arp(arp) = &mut answer.content {
                arp.operation = 2;
            }
            harness.send(Side::Provider, &answer).expect_passed(&answer);
        },
    ),
    (
        "an ARP reply from an isolated network does not reach the host",
        |harness| {
            let mut answer = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT));
            if let Content::Arp(arp) = &mut answer.content {
                arp.operation = 2;
            }
            harness
                .send(Side::A, &answer)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
        },
    ),
    (
        "of an isolated provider's network the agent gets ARP replies and announcements only",
        |harness| {
            harness.change_network("shop/net", |request| {
                request["isolated"] = true.into();
            });
            let backend = (BACKEND_MAC, BACKENDS[0]);
            let announcement = arp_request(BACKENDS[0], backend);
            harness
                .send(Side::Provider, &announcement)
                .expect_passed(&announcement);
            let mut answer = arp_request(NAT, backend);
            if let Content::Arp(arp) = &mut answer.content {
                arp.operation = 2;
            }
            harness.send(Side::Provider, &answer).expect_passed(&answer);
            harness
                .send(Side::Provider, &arp_request(BACKENDS[1], backend))
                .expect_dropped(DropReason::UnknownNeighbourTarget);
            harness
                .send(Side::Provider, &arp_request(NAT, backend))
                .expect_reply();
        },
    ),
    (
        "ARP of another hardware or protocol type, length or operation is dropped (RFC 826)",
        |harness| {
            for (offset, value) in [
                (14, 6),
                (15, 6),
                (17, 1),
                (18, 8),
                (19, 16),
                (20, 1),
                (21, 0),
                (21, 3),
                (21, 4),
                (21, 9),
            ] {
                let mut frame = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)).bytes(false);
                frame[offset] = value;
                harness
                    .send_bytes(Side::A, &frame)
                    .expect_dropped(DropReason::ArpInvalid);
                // The host judges for itself on a network that is not isolated.
                let result = harness.send_bytes(Side::Provider, &frame);
                assert_eq!((result.verdict, result.frame), (Verdict::Pass, frame));
            }
        },
    ),
    (
        "ARP to another host's MAC address is not answered, and claims nothing",
        |harness| {
            let elsewhere = [2, 0, 0, 0, 1, 9];
            for sender in [CLIENT, ENDPOINT] {
                for operation in [1, 2] {
                    let mut packet = arp_request(ENDPOINT, (CLIENT_MAC, sender));
                    set_operation(&mut packet, operation);
                    packet.to = elsewhere;
                    harness
                        .send(Side::A, &packet)
                        .expect_dropped(DropReason::DestinationMac);
                    harness.send(Side::Provider, &packet).expect_passed(&packet);
                }
            }
            assert_eq!(harness.conflicts(), []);
            let mut unicast = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT));
            unicast.to = Side::A.mac();
            harness.send(Side::A, &unicast).expect_reply();
        },
    ),
    (
        "ARP whose sender no host can be is dropped, and claims nothing (RFC 5227)",
        |harness| {
            let group = [1, 0, 94, 0, 0, 1];
            for sender in ["127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
                let sender = sender.parse().expect("an address");
                harness
                    .send(Side::A, &arp_request(ENDPOINT, (CLIENT_MAC, sender)))
                    .expect_dropped(DropReason::MartianSource);
            }
            // Only a request may come from a host without an address.
            let mut reply = arp_request(ENDPOINT, (CLIENT_MAC, Ipv4Addr::UNSPECIFIED));
            set_operation(&mut reply, 2);
            harness
                .send(Side::A, &reply)
                .expect_dropped(DropReason::MartianSource);
            // Ethernet and ARP name different senders. Either may be wrong.
            let mut claim = arp_request(ENDPOINT, (group, ENDPOINT));
            for (ethernet, sender) in [(CLIENT_MAC, group), (group, CLIENT_MAC)] {
                claim.from = ethernet;
                if let Content::Arp(arp) = &mut claim.content {
                    arp.sender.0 = sender;
                }
                for operation in [1, 2] {
                    set_operation(&mut claim, operation);
                    harness
                        .send(Side::A, &claim)
                        .expect_dropped(DropReason::MartianSource);
                }
            }
            assert_eq!(harness.conflicts(), []);
        },
    ),
    (
        "the reply goes to the sender in the ARP header, as the kernel's does",
        |harness| {
            let mut request = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT));
            request.from = [2, 0, 0, 0, 1, 77];
            let answer = harness.send(Side::A, &request).expect_reply();
            assert_eq!((answer.to, answer.from), (CLIENT_MAC, Side::A.mac()));
            match answer.content {
                Content::Arp(arp) => assert_eq!(arp.target, (CLIENT_MAC, CLIENT)),
                _ => panic!("{answer}"),
            }
        },
    ),
    ("truncated ARP is dropped", |harness| {
        let frame = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)).bytes(false);
        harness
            .send_bytes(Side::A, &frame[..41])
            .expect_dropped(DropReason::Truncated);
    }),
    (
        "ping to an endpoint is answered, with a new TTL",
        |harness| {
            let ping = icmp(CLIENT, ENDPOINT, 8, 0, &[0x12, 0x34, 0, 1, b'h', b'i'])
                .edit_ipv4(|ip| ip.ttl = 3);
            let answer = harness.send(Side::A, &ping).expect_reply();
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
        },
    ),
    (
        "ping to an SNAT address is answered in the provider's network",
        |harness| {
            let ping = icmp(BACKENDS[0], NAT, 8, 0, &[0; 4]).with_source_mac(BACKEND_MAC);
            harness.send(Side::Provider, &ping).expect_reply();
        },
    ),
    (
        "ping to another address from an isolated network is dropped",
        |harness| {
            harness
                .send(Side::A, &icmp(CLIENT, UNKNOWN_ADDRESS, 8, 0, &[0; 4]))
                .expect_dropped(DropReason::NoSuchEndpoint);
        },
    ),
    (
        "ping to the host's own address passes if the network is not isolated",
        |harness| {
            let ping = icmp(BACKENDS[0], Ipv4Addr::new(10, 1, 0, 1), 8, 0, &[0; 4])
                .with_source_mac(BACKEND_MAC);
            harness.send(Side::Provider, &ping).expect_passed(&ping);
        },
    ),
    (
        "an ICMP message other than an echo request is dropped",
        |harness| {
            for kind in [0, 5, 13, 17] {
                let message = icmp(CLIENT, ENDPOINT, kind, 0, &[0; 4]);
                harness
                    .send(Side::A, &message)
                    .expect_dropped(DropReason::IcmpUnsupported);
            }
        },
    ),
    ("ping from a martian source is dropped", |harness| {
        for source in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "10.0.0.100",
        ] {
            let ping = icmp(source.parse().expect("an address"), ENDPOINT, 8, 0, &[0; 4]);
            harness
                .send(Side::A, &ping)
                .expect_dropped(DropReason::MartianSource);
        }
    }),
    (
        "ping with a length below the ICMP header's is malformed",
        |harness| {
            let mut frame = icmp(CLIENT, ENDPOINT, 8, 0, &[0; 4]).bytes(false);
            frame[17] = 24;
            harness
                .send_bytes(Side::A, &frame)
                .expect_dropped(DropReason::Malformed);
        },
    ),
];

#[test]
fn gateway_answers_for_its_local_addresses() {
    run_cases(CASES);
}
