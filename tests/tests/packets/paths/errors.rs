//! ICMP errors of others: who is told, and what.

use std::net::IpAddr;

use gateway_common::DropReason;
use tests::{
    lab::{BACKEND_MAC, CLIENT_MAC, Side},
    packet::{Content, Packet, Transport, flag::RST},
    path::{between, datagram, error, ip},
};

use super::{asked, long, port_unreachable};
use crate::{PathRow, run_paths};

const ROWS: &[PathRow] = &[
    (
        "a server's refusal of a datagram reaches the client",
        |lab, path| {
            let question = path.question(b"question");
            let sent = lab.send(Side::A, &question);
            let flow = path.went_to_service(&sent, 53);
            let left = sent.forwarded(Side::Provider).packet;
            let kind = port_unreachable(path.provider_is_v4());
            for most in [28, 48, 500] {
                let most = if path.provider_is_v4() {
                    most
                } else {
                    most.max(48)
                };
                let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, most);
                let out = lab
                    .send(Side::Provider, &refusal.from(BACKEND_MAC))
                    .forwarded(Side::A);
                let told = told(&out.packet);
                assert_eq!(told.kind, if path.is_v4() { (3, 3) } else { (1, 4) });
                assert_eq!(
                    (told.source, told.destination),
                    (path.endpoint_ip(), path.client_ip())
                );
                names(&told.embedded, &question);
            }
        },
    ),
    (
        "a router's error comes from the endpoint: nobody learns of the router",
        |lab, path| {
            path.connect(lab);
            let data = path.from_client().data(b"data");
            let left = lab.send(Side::A, &data).forwarded(Side::Provider).packet;
            let (kind, wanted) = if path.provider_is_v4() {
                ((11, 0), 0)
            } else {
                ((3, 0), 0)
            };
            let nat = ip(&left).0;
            let expired = error(path.router(), nat, kind, wanted, &left, 100).from(BACKEND_MAC);
            let out = lab
                .send(Side::Provider, &expired)
                .forwarded(Side::A)
                .station(CLIENT_MAC);
            let told = told(&out.packet);
            assert_eq!(told.kind, if path.is_v4() { (11, 0) } else { (3, 0) });
            assert_eq!(told.source, path.endpoint_ip());
            names(&told.embedded, &data);
        },
    ),
    (
        "a smaller MTU on the way is told in the client's terms (RFC 7915)",
        |lab, path| {
            path.connect(lab);
            let data = path.from_client().data(&long(1_000));
            let left = lab.send(Side::A, &data).forwarded(Side::Provider).packet;
            let nat = ip(&left).0;
            let kind = if path.provider_is_v4() {
                (3, 4)
            } else {
                (2, 0)
            };
            let too_big = error(path.router(), nat, kind, 1_300, &left, 500).from(BACKEND_MAC);
            let out = lab.send(Side::Provider, &too_big).forwarded(Side::A);
            let told = told(&out.packet);
            let wanted = match (path.provider_is_v4(), path.is_v4()) {
                (true, false) => 1_320,
                (false, true) => 1_280,
                _ => 1_300,
            };
            assert_eq!(told.kind, if path.is_v4() { (3, 4) } else { (2, 0) });
            assert_eq!(told.rest, wanted);
            names(&told.embedded, &data);
        },
    ),
    ("a client's error reaches the server", |lab, path| {
        let sent = lab.send(Side::A, &path.question(b"question"));
        let flow = path.went_to_service(&sent, 53);
        let answer = flow.answer(b"answer");
        let left = lab.send(Side::Provider, &answer).forwarded(Side::A).packet;
        let kind = port_unreachable(path.is_v4());
        let refusal = error(path.client_ip(), path.endpoint_ip(), kind, 0, &left, 500);
        let out = lab
            .send(Side::A, &refusal)
            .forwarded(Side::Provider)
            .station(BACKEND_MAC);
        let told = told(&out.packet);
        assert_eq!(
            told.kind,
            if path.provider_is_v4() {
                (3, 3)
            } else {
                (1, 4)
            }
        );
        assert_eq!(
            (told.source, told.destination),
            (flow.nat.ip(), flow.backend.ip())
        );
        names(&told.embedded, &answer);
    }),
    (
        "an error whose checksum is wrong is not believed",
        |lab, path| {
            let (flow, left) = asked(lab, path);
            let kind = port_unreachable(path.provider_is_v4());
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            let mut frame = refusal.from(BACKEND_MAC).bytes(false);
            let last = frame.len() - 1;
            frame[last] ^= 1;
            lab.send_bytes(Side::Provider, &frame)
                .dropped(DropReason::ChecksumWrong);
        },
    ),
    (
        "an error about a header whose checksum is wrong is not believed (RFC 5508)",
        |lab, path| {
            let (flow, left) = asked(lab, path);
            if !path.provider_is_v4() {
                return;
            }
            let refusal = error(flow.backend.ip(), flow.nat.ip(), (3, 3), 0, &left, 500);
            let mut refusal = refusal.from(BACKEND_MAC);
            if let Content::Ipv4(ipv4) = &mut refusal.content
                && let Transport::Icmp(_, _, body) = &mut ipv4.transport
            {
                // The time to live in it, without what belongs to that.
                body[4 + 8] ^= 1;
            }
            lab.send(Side::Provider, &refusal)
                .dropped(DropReason::ChecksumWrong);
        },
    ),
    ("an error about no flow goes nowhere", |lab, path| {
        let sent = lab.send(Side::A, &path.question(b"question"));
        let flow = path.went_to_service(&sent, 53);
        let kind = port_unreachable(path.provider_is_v4());
        let mut nat = flow.nat;
        nat.set_port(nat.port() ^ 2);
        let other = datagram(nat, flow.backend, b"never sent");
        let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &other, 500);
        lab.send(Side::Provider, &refusal.from(BACKEND_MAC))
            .dropped(DropReason::NoFlow);
    }),
    (
        "an error to one address about a packet of another goes nowhere",
        |lab, path| {
            let (flow, left) = asked(lab, path);
            let kind = port_unreachable(path.provider_is_v4());
            let other = lab.another_nat_address(flow.nat.ip());
            let refusal = error(flow.backend.ip(), other, kind, 0, &left, 500);
            lab.send(Side::Provider, &refusal.from(BACKEND_MAC))
                .dropped(DropReason::NoFlow);
        },
    ),
    ("an error that says too little is malformed", |lab, path| {
        let (flow, left) = asked(lab, path);
        let (kind, least) = if path.provider_is_v4() {
            ((3, 3), 28)
        } else {
            ((1, 4), 48)
        };
        for most in [0, 8, least - 1] {
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, most);
            lab.send(Side::Provider, &refusal.from(BACKEND_MAC))
                .dropped(DropReason::Malformed);
        }
    }),
    (
        "an error about an error, or about what is not carried, is counted",
        |lab, path| {
            let sent = lab.send(Side::A, &path.question(b"question"));
            let flow = path.went_to_service(&sent, 53);
            let (icmp, kind) = if path.provider_is_v4() {
                (1, (3, 3))
            } else {
                (58, (1, 4))
            };
            for protocol in [icmp, 47, 132] {
                let transport = Transport::Other(protocol, vec![3; 40]);
                let about = between(flow.nat.ip(), flow.backend.ip(), transport);
                let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &about, 500);
                lab.send(Side::Provider, &refusal.from(BACKEND_MAC))
                    .dropped(DropReason::IcmpUnsupported);
            }
        },
    ),
    (
        "an error of a flow that is cut goes nowhere",
        |lab, path| {
            let (flow, left) = asked(lab, path);
            lab.decide(path.endpoint_name, gateway::model::Decision::Reject);
            let kind = port_unreachable(path.provider_is_v4());
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            lab.send(Side::Provider, &refusal.from(BACKEND_MAC))
                .dropped(DropReason::ConnectionRevoked);
        },
    ),
    (
        "an error whose time ends here is not answered with another",
        |lab, path| {
            let (flow, left) = asked(lab, path);
            let kind = port_unreachable(path.provider_is_v4());
            let refusal = error(flow.backend.ip(), flow.nat.ip(), kind, 0, &left, 500);
            lab.send(Side::Provider, &refusal.from(BACKEND_MAC).hops(1))
                .dropped(DropReason::TtlExpired);
        },
    ),
    (
        "no refusal is answered: neither an error nor a reset, nor to who can't be a host",
        |lab, path| {
            let elsewhere = (path.endpoint_ip(), 54).into();
            let from_group = datagram(path.client(), elsewhere, b"x").from([1, 0, 94, 0, 0, 1]);
            lab.send(Side::A, &from_group)
                .dropped(DropReason::InvalidSource);
            lab.send(Side::A, &path.segment().flags(RST, 1, 1))
                .dropped(DropReason::NoFlow);
        },
    ),
];

/// An ICMP error that was forwarded.
struct Told {
    kind: (u8, u8),
    rest: u32,
    source: IpAddr,
    destination: IpAddr,
    embedded: Vec<u8>,
}

fn told(packet: &Packet) -> Told {
    let (source, destination, transport) = ip(packet);
    match transport {
        Transport::Icmp(kind, code, body) => Told {
            kind: (*kind, *code),
            rest: u32::from_be_bytes([body[0], body[1], body[2], body[3]]),
            source,
            destination,
            embedded: body[4..].to_vec(),
        },
        other => panic!("no ICMP: {other:?}"),
    }
}

/// What is embedded names the addresses and ports that the packet was sent with, so that its sender
/// finds its socket.
#[track_caller]
fn names(embedded: &[u8], sent: &Packet) {
    let frame = sent.bytes(false);
    let (addresses, ports) = match &sent.content {
        Content::Ipv4(_) => (12..20, 20..24),
        _ => (8..40, 40..44),
    };
    assert_eq!(
        embedded[addresses.clone()],
        frame[14..][addresses],
        "the addresses"
    );
    assert_eq!(embedded[ports.clone()], frame[14..][ports], "the ports");
    // And the header in it is whole: IPv4's has its checksum.
    if matches!(sent.content, Content::Ipv4(_)) {
        let sum: u32 = embedded[..20]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!(
            (sum >> 16) + (sum & 0xffff),
            0xffff,
            "the header's checksum"
        );
    }
}

#[test]
fn each_path_tells_of_errors() {
    run_paths(ROWS);
}
