//! Address conflicts: other hosts that claim local addresses (RFC 5227; RFC 4862, section 5.4).

use gateway_common::DropReason;
use tests::{
    datapath::differential::{
        BACKEND_MAC, CLIENT, CLIENT_MAC, CLIENT_V6, DifferentialHarness, ENDPOINT, ENDPOINT_V6,
        HTTPS, NAT, Side, arp_request, icmp, icmp_v6, neighbour_solicitation, tcp, tcp_v6,
    },
    packet::{Content, Packet},
};

use crate::{Case, run_cases};

/// Returns an ARP reply or a gratuitous request that claims an address.
fn arp_claim(operation: u16, address: std::net::Ipv4Addr) -> Packet {
    let mut packet = arp_request(address, (CLIENT_MAC, address));
    if let Content::Arp(arp) = &mut packet.content {
        arp.operation = operation;
    }
    packet
}

/// Returns a neighbour advertisement of the endpoint's address by another host.
fn advertisement() -> Packet {
    let mut rest = vec![0x20, 0, 0, 0];
    rest.extend(ENDPOINT_V6.octets());
    rest.extend([2, 1]);
    rest.extend(CLIENT_MAC);
    let all_nodes = "ff02::1".parse().expect("an address");
    let mut packet = icmp_v6(ENDPOINT_V6, all_nodes, 136, &rest).edit_ipv6(|ip| ip.hop_limit = 255);
    packet.to = [0x33, 0x33, 0, 0, 0, 1];
    packet
}

fn mark_endpoints_tentative(harness: &mut DifferentialHarness) {
    harness.mark_tentative("a/net", ENDPOINT.into());
    harness.mark_tentative("a/net", ENDPOINT_V6.into());
}

const CASES: &[Case] = &[
    (
        "a gratuitous ARP request or reply for an endpoint's address is a conflict",
        |harness| {
            for operation in [1, 2] {
                harness
                    .send(Side::A, &arp_claim(operation, ENDPOINT))
                    .expect_dropped(DropReason::AddressConflict);
            }
            assert_eq!(harness.conflicts(), [(ENDPOINT.into(), CLIENT_MAC)]);
        },
    ),
    (
        "a conflict does not change replies: the address is defended",
        |harness| {
            harness
                .send(Side::A, &arp_claim(2, ENDPOINT))
                .expect_dropped(DropReason::AddressConflict);
            harness
                .send(Side::A, &arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)))
                .expect_reply();
            let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1);
            harness.send(Side::A, &syn).expect_forwarded(Side::Provider);
        },
    ),
    (
        "a claim of an SNAT address in the provider's network is a conflict",
        |harness| {
            let mut packet = arp_claim(2, NAT).with_source_mac(BACKEND_MAC);
            if let Content::Arp(arp) = &mut packet.content {
                arp.sender.0 = BACKEND_MAC;
            }
            harness
                .send(Side::Provider, &packet)
                .expect_dropped(DropReason::AddressConflict);
        },
    ),
    ("a claim in another network is no conflict", |harness| {
        harness
            .send(Side::A, &arp_claim(2, NAT))
            .expect_dropped(DropReason::UnknownNeighbourTarget);
        assert_eq!(harness.conflicts(), []);
    }),
    ("the gateway's own announcement is no conflict", |harness| {
        let mut own = arp_claim(1, ENDPOINT);
        own.from = Side::A.mac();
        if let Content::Arp(arp) = &mut own.content {
            arp.sender.0 = Side::A.mac();
        }
        harness.send(Side::A, &own).expect_reply();
        assert_eq!(harness.conflicts(), []);
    }),
    (
        "an advertisement of an endpoint's address is a conflict (RFC 4862)",
        |harness| {
            harness
                .send(Side::A, &advertisement())
                .expect_dropped(DropReason::AddressConflict);
            assert_eq!(harness.conflicts(), [(ENDPOINT_V6.into(), CLIENT_MAC)]);
        },
    ),
    (
        "an advertisement that a router forwarded is no conflict (RFC 4861, section 7.1.2)",
        |harness| {
            let far = advertisement().edit_ipv6(|ip| ip.hop_limit = 254);
            harness
                .send(Side::A, &far)
                .expect_dropped(DropReason::NeighbourMessageInvalid);
            assert_eq!(harness.conflicts(), []);
        },
    ),
    ("a tentative address is not answered for", |harness| {
        mark_endpoints_tentative(harness);
        harness
            .send(Side::A, &arp_request(ENDPOINT, (CLIENT_MAC, CLIENT)))
            .expect_dropped(DropReason::UnknownNeighbourTarget);
        harness
            .send(Side::A, &neighbour_solicitation(ENDPOINT_V6, CLIENT_V6))
            .expect_dropped(DropReason::UnknownNeighbourTarget);
        harness
            .send(Side::A, &icmp(CLIENT, ENDPOINT, 8, 0, &[0; 4]))
            .expect_dropped(DropReason::NoSuchEndpoint);
    }),
    ("packets to a tentative address are dropped", |harness| {
        mark_endpoints_tentative(harness);
        let syn = tcp((CLIENT, 40_000), (ENDPOINT, HTTPS)).syn(1);
        harness
            .send(Side::A, &syn)
            .expect_dropped(DropReason::NoSuchEndpoint);
        let syn = tcp_v6((CLIENT_V6, 40_000), (ENDPOINT_V6, HTTPS)).syn(1);
        harness
            .send(Side::A, &syn)
            .expect_dropped(DropReason::NoSuchEndpoint);
        assert_eq!(harness.conflicts(), []);
    }),
    (
        "a probe that is sent to the gateway alone is no conflict: a switch tracks its devices by it",
        |harness| {
            mark_endpoints_tentative(harness);
            let mut probe = arp_request(ENDPOINT, (CLIENT_MAC, std::net::Ipv4Addr::UNSPECIFIED));
            probe.to = Side::A.mac();
            harness
                .send(Side::A, &probe)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
            let mut probe = neighbour_solicitation(ENDPOINT_V6, std::net::Ipv6Addr::UNSPECIFIED);
            probe.to = Side::A.mac();
            harness
                .send(Side::A, &probe)
                .expect_dropped(DropReason::UnknownNeighbourTarget);
            assert_eq!(harness.conflicts(), []);
        },
    ),
    (
        "a claim and a probe of a tentative address are conflicts",
        |harness| {
            let probe = arp_request(ENDPOINT, (CLIENT_MAC, std::net::Ipv4Addr::UNSPECIFIED));
            for (packet, is_probe) in [(arp_claim(2, ENDPOINT), false), (probe, true)] {
                harness.reset();
                mark_endpoints_tentative(harness);
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::AddressConflict);
                let expected = (ENDPOINT.into(), CLIENT_MAC, is_probe);
                assert_eq!(harness.conflicts_and_probes(), [expected]);
            }
            let probe = neighbour_solicitation(ENDPOINT_V6, std::net::Ipv6Addr::UNSPECIFIED);
            for (packet, is_probe) in [(advertisement(), false), (probe, true)] {
                harness.reset();
                mark_endpoints_tentative(harness);
                harness
                    .send(Side::A, &packet)
                    .expect_dropped(DropReason::AddressConflict);
                let expected = (ENDPOINT_V6.into(), CLIENT_MAC, is_probe);
                assert_eq!(harness.conflicts_and_probes(), [expected]);
            }
        },
    ),
    ("a probe of a local address is answered", |harness| {
        let probe = arp_request(ENDPOINT, (CLIENT_MAC, std::net::Ipv4Addr::UNSPECIFIED));
        harness.send(Side::A, &probe).expect_reply();
        let probe = neighbour_solicitation(ENDPOINT_V6, std::net::Ipv6Addr::UNSPECIFIED);
        harness.send(Side::A, &probe).expect_reply();
        assert_eq!(harness.conflicts(), []);
    }),
];

#[test]
fn address_conflicts_are_detected() {
    run_cases(CASES);
}
