use super::*;
use crate::inject::frames;

const FROM: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const TO: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4], destination: [u8; 6]) -> Vec<u8> {
    let mut frame = destination.to_vec();
    frame.extend(FROM.bytes());
    frame.extend([8, 6]);
    frame.extend(ARP_ETHERNET_IPV4);
    frame.extend([0, operation]);
    frame.extend(FROM.bytes());
    frame.extend(sender);
    frame.extend(TO.bytes());
    frame.extend(target);
    frame
}

fn arp_kind(frame: &[u8]) -> Option<MessageKind> {
    parse_arp(frame).map(|message| {
        assert_eq!(message.address, IpAddr::from([10, 1, 0, 10]));
        assert_eq!(message.mac, Some(FROM));
        message.kind
    })
}

#[test]
fn arp_packets_are_answers_or_announcements() {
    let (host, other) = ([10, 1, 0, 10], [10, 1, 0, 1]);
    let (all, one) = ([0xff; 6], TO.bytes());
    assert_eq!(
        arp_kind(&arp(2, host, other, one)),
        Some(MessageKind::ArpReply)
    );
    for announcement in [
        arp(2, host, other, all),
        arp(2, host, host, one),
        arp(1, host, host, all),
        arp(1, host, other, all),
    ] {
        assert_eq!(arp_kind(&announcement), Some(MessageKind::Announcement));
    }
    // A probe claims nothing. The others are no addresses of hosts.
    for sender in [[0; 4], [224, 0, 0, 1], [255; 4]] {
        assert_eq!(parse_arp(&arp(1, sender, host, all)), None);
    }
    let frame = arp(2, host, other, one);
    assert_eq!(parse_arp(&arp(3, host, other, one)), None);
    for length in 0..frame.len() {
        assert_eq!(parse_arp(&frame[..length]), None, "{length}");
    }
    for offset in 14..20 {
        let mut frame = frame.clone();
        frame[offset] ^= 1;
        assert_eq!(parse_arp(&frame), None, "{offset}");
    }
}

/// Returns a frame with an ICMPv6 message that has the correct checksum.
fn ndp(source: &str, destination: &str, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().unwrap();
    let destination: Ipv6Addr = destination.parse().unwrap();
    message[2..4].fill(0);
    let sum = checksum(source, destination, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [TO.bytes(), FROM.bytes()].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0]);
    frame.extend([u8::try_from(message.len()).unwrap(), ICMPV6, hop_limit]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

fn message(kind: u8, flags: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend(options);
    message
}

fn option(kind: u8) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend(FROM.bytes());
    option
}

#[test]
fn advertisements_are_validated() {
    let parse = |flags, options: &[u8], destination: &str| {
        let message = message(136, flags, "fd00::10", options);
        parse_neighbour_discovery(&ndp("fe80::10", destination, 255, message))
    };
    let (me, target) = ("fd00::1", option(TARGET_LINK_LAYER_ADDRESS));
    let found = parse(0x60, &target, me).unwrap();
    assert_eq!(found.address, "fd00::10".parse::<IpAddr>().unwrap());
    assert_eq!(found.mac, Some(FROM));
    let flags = |message: NeighbourMessage| match message.kind {
        MessageKind::Advertisement {
            solicited,
            overrides,
        } => (solicited, overrides),
        other => panic!("{other:?}"),
    };
    assert_eq!(flags(found), (true, true));
    assert_eq!(
        flags(parse(0x20, &target, "ff02::1").unwrap()),
        (false, true)
    );
    // No answer is sent to a group.
    assert_eq!(parse(0x60, &target, "ff02::1"), None);
    let without = parse(0x40, &[], me).unwrap();
    assert_eq!((without.mac, flags(without)), (None, (true, false)));
    // An option of length 0, one beyond the end, and one of another kind.
    assert_eq!(parse(0x40, &[2, 0, 0, 0, 0, 0, 0, 0], me), None);
    assert_eq!(parse(0x40, &[2, 2, 0, 0, 0, 0, 0, 0], me), None);
    let other = option(SOURCE_LINK_LAYER_ADDRESS);
    assert_eq!(parse(0x40, &other, me).unwrap().mac, None);
}

#[test]
fn invalid_messages_are_discarded() {
    let valid = message(136, 0x60, "fd00::10", &option(TARGET_LINK_LAYER_ADDRESS));
    let frame = ndp("fd00::10", "fd00::1", 255, valid.clone());
    assert!(parse_neighbour_discovery(&frame).is_some());
    // Padding of the frame is no part of the message.
    let padded = [&frame[..], &[0; 9]].concat();
    assert!(parse_neighbour_discovery(&padded).is_some());
    for length in 0..frame.len() {
        assert_eq!(parse_neighbour_discovery(&frame[..length]), None);
    }
    let routed = ndp("fd00::10", "fd00::1", 254, valid.clone());
    assert_eq!(parse_neighbour_discovery(&routed), None);
    for offset in ETHERNET_LEN + IPV6_LEN..frame.len() {
        let mut frame = frame.clone();
        frame[offset] ^= 0x10;
        assert_eq!(parse_neighbour_discovery(&frame), None, "{offset}");
    }
    let group = message(136, 0x60, "ff02::1", &option(TARGET_LINK_LAYER_ADDRESS));
    assert_eq!(
        parse_neighbour_discovery(&ndp("fd00::10", "fd00::1", 255, group)),
        None
    );
    let mut code = valid;
    code[1] = 1;
    assert_eq!(
        parse_neighbour_discovery(&ndp("fd00::10", "fd00::1", 255, code)),
        None
    );
}

#[test]
fn solicitations_name_their_sender() {
    let source = option(SOURCE_LINK_LAYER_ADDRESS);
    let parse = |source_address: &str, options: &[u8]| {
        let message = message(135, 0, "fd00::1", options);
        parse_neighbour_discovery(&ndp(source_address, "ff02::1:ff00:1", 255, message))
    };
    let found = parse("fd00::10", &source).unwrap();
    assert_eq!(found.address, "fd00::10".parse::<IpAddr>().unwrap());
    assert_eq!(
        (found.mac, found.kind),
        (Some(FROM), MessageKind::Solicitation)
    );
    assert_eq!(parse("fd00::10", &[]), None);
    assert_eq!(parse("::", &source), None);
}

#[test]
fn messages_of_the_agent_itself_are_valid() {
    let (one, six): (IpAddr, IpAddr) = ("10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
    let announced = parse_arp(&frames::announcement(FROM, one)).unwrap();
    assert_eq!(
        (announced.address, announced.kind),
        (one, MessageKind::Announcement)
    );
    assert!(parse_arp(&frames::probe(FROM, one)).is_none());
    let announced = parse_neighbour_discovery(&frames::announcement(FROM, six)).unwrap();
    assert_eq!((announced.address, announced.mac), (six, Some(FROM)));
    for to in [None, Some(TO)] {
        let asked = "fd00::10".parse().unwrap();
        let frame = frames::solicitation(FROM, Some(six), asked, to);
        let found = parse_neighbour_discovery(&frame).unwrap();
        assert_eq!((found.address, found.mac), (six, Some(FROM)));
        let asked = "10.1.0.10".parse().unwrap();
        let found = parse_arp(&frames::solicitation(FROM, Some(one), asked, to)).unwrap();
        assert_eq!((found.address, found.mac), (one, Some(FROM)));
        assert!(parse_arp(&frames::solicitation(FROM, None, asked, to)).is_none());
    }
}
