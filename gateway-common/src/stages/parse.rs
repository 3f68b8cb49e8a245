//! Stage 2: what kind of packet it is. Headers are bounds-checked here, once.
//!
//! Guarantees to the stages behind it: the frame was sent to our own hardware address (ARP: or to
//! all; neighbour solicitations: or to the group of the address that they ask for), an IPv4 header
//! has no options, the lengths cover the headers and lie within the frame, and the packet is no
//! fragment. A packet that fails one of these is dropped if it is for an address of ours or the
//! attachment is isolated; otherwise it is the host's.

use crate::{
    DropReason, Environment, Family, Step, V4, V6, Verdict,
    family::Header as _,
    flow::FlowKey,
    maps::{AddressKey, Attachment, NO_LINK},
    packet::{
        Arp, EtherType, Ethernet, Extension, Icmp, Ipv4, Ipv6, Neighbour, Tcp, Udp, protocol,
    },
};

/// Where the network header starts.
pub(super) const L3: usize = Ethernet::LENGTH;

/// Extension headers that are walked at the most.
const MOST_EXTENSIONS: usize = 4;
/// Their longest.
const MOST_WALKED: u16 = 4 * 256 * 8;

/// A frame that can concern us.
pub(super) enum Frame {
    /// ARP.
    Arp(Arp),
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A packet that can concern us.
pub(super) enum Arrival<F: Family> {
    /// An ICMP message that is none of neighbour discovery.
    Echo(Echo<F>),
    /// A neighbour solicitation.
    Neighbour(Solicitation),
    /// TCP or UDP.
    Segment(Segment<F>),
}

/// An ICMP message with its headers.
pub(super) struct Echo<F: Family> {
    pub(super) header: F::Header,
    pub(super) icmp: Icmp,
}

/// A neighbour solicitation with its headers.
pub(super) struct Solicitation {
    pub(super) ipv6: Ipv6,
    pub(super) message: Neighbour,
    /// The message's length in bytes.
    pub(super) length: u16,
}

/// A TCP segment or UDP datagram with its headers.
pub(super) struct Segment<F: Family> {
    pub(super) header: F::Header,
    pub(super) transport: Transport,
    pub(super) key: FlowKey<F>,
    /// Where the transport header starts.
    pub(super) l4: usize,
    /// The IP packet's length in bytes.
    pub(super) length: u16,
    /// How much of that is the transport header and what is behind it.
    pub(super) payload: u16,
}

/// The transport header.
#[derive(Clone, Copy)]
pub(super) enum Transport {
    Tcp(Tcp),
    Udp(Udp),
}

impl<F: Family> Segment<F> {
    /// Whether a segment like this may open a flow: a SYN alone, or any datagram.
    #[inline(always)]
    pub(super) fn opens(&self) -> bool {
        match self.transport {
            Transport::Tcp(tcp) => tcp.opens(),
            Transport::Udp(_) => true,
        }
    }

    /// The key of the address that the segment is for.
    #[inline(always)]
    pub(super) fn address_key(&self) -> AddressKey {
        AddressKey {
            network: self.key.network,
            address: F::widen(self.key.destination),
        }
    }
}

/// What becomes of a packet that is for none of our addresses.
#[inline(always)]
pub(super) fn not_ours(attachment: &Attachment, reason: DropReason) -> Verdict {
    if attachment.isolated() {
        Verdict::Drop(reason, NO_LINK)
    } else {
        Verdict::Pass
    }
}

/// What becomes of a packet that we can't handle, once it is known for whom it is.
#[inline(always)]
fn refuse<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    header: F::Header,
    reason: DropReason,
) -> Verdict {
    let key = AddressKey {
        network: attachment.network,
        address: F::widen(header.destination()),
    };
    match env.address(&key) {
        Some(address) => Verdict::Drop(reason, address.link),
        None => not_ours(attachment, reason),
    }
}

/// Tells what the frame is.
#[inline(always)]
pub(super) fn frame<E: Environment>(env: &E, attachment: &Attachment) -> Step<Frame> {
    let truncated = || not_ours(attachment, DropReason::Truncated);
    let ethernet = Ethernet::at(env, 0).ok_or_else(truncated)?;
    match ethernet.ether_type() {
        EtherType::IPV4 => Ok(Frame::Ipv4),
        EtherType::IPV6 => Ok(Frame::Ipv6),
        EtherType::ARP => Arp::at(env, L3).map(Frame::Arp).ok_or_else(truncated),
        EtherType::VLAN | EtherType::SERVICE_VLAN => {
            Err(not_ours(attachment, DropReason::VlanTagged))
        }
        _ => Err(not_ours(attachment, DropReason::EtherTypeUnsupported)),
    }
}

/// Whether the frame is for our station.
#[inline(always)]
fn is_for_us<E: Environment>(env: &E, attachment: &Attachment) -> bool {
    Ethernet::at(env, 0).is_some_and(|ethernet| ethernet.destination() == attachment.mac)
}

/// Tells what the IPv4 packet is.
#[inline(always)]
pub(super) fn ipv4<E: Environment>(env: &E, attachment: &Attachment) -> Step<Arrival<V4>> {
    let truncated = || not_ours(attachment, DropReason::Truncated);
    let header = Ipv4::at(env, L3).ok_or_else(truncated)?;
    if !is_for_us(env, attachment) {
        return Err(not_ours(attachment, DropReason::DestinationMac));
    }
    let refuse = |reason| refuse::<V4, E>(env, attachment, header, reason);
    if header.version_ihl() != Ipv4::PLAIN {
        let options = header.version_ihl() > Ipv4::PLAIN && header.version_ihl() <= 0x4f;
        let reason = if options {
            DropReason::Ipv4Options
        } else {
            DropReason::Malformed
        };
        return Err(refuse(reason));
    }
    let length = header.total_length().get();
    if length < Ipv4::OCTETS {
        return Err(refuse(DropReason::Malformed));
    }
    if L3 + usize::from(length) > env.packet_length() {
        return Err(refuse(DropReason::Truncated));
    }
    if header.is_fragment() {
        return Err(refuse(DropReason::Fragment));
    }
    let behind = Behind {
        protocol: header.protocol(),
        l4: L3 + Ipv4::LENGTH,
        length,
        payload: length - Ipv4::OCTETS,
    };
    transport::<V4, E>(env, attachment, header, &behind)
}

/// Tells what the IPv6 packet is.
#[inline(always)]
pub(super) fn ipv6<E: Environment>(env: &mut E, attachment: &Attachment) -> Step<Arrival<V6>> {
    let truncated = || not_ours(attachment, DropReason::Truncated);
    let header = Ipv6::at(env, L3).ok_or_else(truncated)?;
    if !is_for_us(env, attachment) {
        return solicitation_to_a_group(env, attachment, header);
    }
    let payload = header.payload_length().get();
    // The second would be longer than a frame can be; jumbograms (RFC 2675) have no length at all.
    if !header.is_version_6() || payload == 0 || payload > u16::MAX - Ipv6::OCTETS {
        return Err(refuse::<V6, E>(
            env,
            attachment,
            header,
            DropReason::Malformed,
        ));
    }
    let length = payload + Ipv6::OCTETS;
    if L3 + usize::from(length) > env.packet_length() {
        return Err(refuse::<V6, E>(
            env,
            attachment,
            header,
            DropReason::Truncated,
        ));
    }
    let mut behind = Behind {
        protocol: header.next_header(),
        l4: L3 + Ipv6::LENGTH,
        length,
        payload,
    };
    if is_extension(behind.protocol)
        && let Err(reason) = walk(env, &mut behind)
    {
        return Err(refuse::<V6, E>(env, attachment, header, reason));
    }
    match behind.protocol {
        protocol::FRAGMENT => Err(refuse::<V6, E>(
            env,
            attachment,
            header,
            DropReason::Fragment,
        )),
        protocol if is_extension(protocol) => Err(refuse::<V6, E>(
            env,
            attachment,
            header,
            DropReason::ExtensionHeaders,
        )),
        protocol::ICMPV6 if behind.l4 == L3 + Ipv6::LENGTH => {
            match Neighbour::at(env, L3 + Ipv6::LENGTH) {
                Some(message) if message.type_and_code() == Neighbour::SOLICITATION => {
                    Ok(Arrival::Neighbour(Solicitation {
                        ipv6: header,
                        message,
                        length: payload,
                    }))
                }
                _ => transport::<V6, E>(env, attachment, header, &behind),
            }
        }
        _ => transport::<V6, E>(env, attachment, header, &behind),
    }
}

/// Whether it is an extension header with a length (RFC 8200, section 4).
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS
    )
}

/// Goes behind the extension headers, or behind as many as are walked.
#[inline(always)]
fn walk<E: Environment>(env: &mut E, behind: &mut Behind) -> Result<(), DropReason> {
    for _ in 0..MOST_EXTENSIONS {
        if !is_extension(behind.protocol) {
            break;
        }
        let extension = Extension::at(env, behind.l4).ok_or(DropReason::Truncated)?;
        let octets = (u16::from(extension.length()) + 1) * 8;
        if octets > behind.payload {
            return Err(DropReason::Malformed);
        }
        behind.protocol = extension.next_header();
        behind.l4 += usize::from(octets);
        behind.payload -= octets;
    }
    let walked = behind.length - Ipv6::OCTETS - behind.payload;
    let walked = env.opaque(walked);
    if walked > MOST_WALKED {
        return Err(DropReason::ExtensionHeaders);
    }
    behind.l4 = L3 + Ipv6::LENGTH + usize::from(walked);
    behind.payload = env.opaque(behind.payload);
    Ok(())
}

/// A frame that is not for our own station can be a question for an address of ours.
#[inline(always)]
fn solicitation_to_a_group<E: Environment>(
    env: &E,
    attachment: &Attachment,
    ipv6: Ipv6,
) -> Step<Arrival<V6>> {
    let group =
        Ethernet::at(env, 0).is_some_and(|ethernet| ethernet.destination().is_solicited_node());
    let length = ipv6.payload_length().get();
    if group && ipv6.next_header() == protocol::ICMPV6 && ipv6.is_version_6() {
        if L3 + Ipv6::LENGTH + usize::from(length) > env.packet_length() {
            return Err(not_ours(attachment, DropReason::Truncated));
        }
        if let Some(message) = Neighbour::at(env, L3 + Ipv6::LENGTH)
            && message.type_and_code() == Neighbour::SOLICITATION
        {
            return Ok(Arrival::Neighbour(Solicitation {
                ipv6,
                message,
                length,
            }));
        }
    }
    Err(not_ours(attachment, DropReason::DestinationMac))
}

/// What is behind the network header.
struct Behind {
    protocol: u8,
    l4: usize,
    length: u16,
    payload: u16,
}

#[inline(always)]
fn transport<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    header: F::Header,
    behind: &Behind,
) -> Step<Arrival<F>> {
    let refuse = |reason| refuse::<F, E>(env, attachment, header, reason);
    let Behind {
        protocol,
        l4,
        length,
        payload,
    } = *behind;
    let (transport, source_port, destination_port) = match protocol {
        protocol::TCP => {
            let Some(tcp) = Tcp::at(env, l4) else {
                return Err(refuse(DropReason::Truncated));
            };
            let header = tcp.header_length();
            if header < Tcp::OCTETS || header > payload {
                return Err(refuse(DropReason::Malformed));
            }
            (
                Transport::Tcp(tcp),
                tcp.source_port(),
                tcp.destination_port(),
            )
        }
        protocol::UDP => {
            let Some(udp) = Udp::at(env, l4) else {
                return Err(refuse(DropReason::Truncated));
            };
            let stated = udp.length().get();
            // IPv6 has no datagrams without checksum (RFC 8200, section 8.1).
            let unchecked = F::ICMP == protocol::ICMPV6 && udp.checksum().raw() == 0;
            if stated < Udp::OCTETS || stated > payload || unchecked {
                return Err(refuse(DropReason::Malformed));
            }
            (
                Transport::Udp(udp),
                udp.source_port(),
                udp.destination_port(),
            )
        }
        protocol if protocol == F::ICMP => {
            if payload < Icmp::OCTETS {
                return Err(refuse(DropReason::Malformed));
            }
            return match Icmp::at(env, l4) {
                Some(icmp) => Ok(Arrival::Echo(Echo { header, icmp })),
                None => Err(refuse(DropReason::Truncated)),
            };
        }
        _ => return Err(refuse(DropReason::ProtocolUnsupported)),
    };
    Ok(Arrival::Segment(Segment {
        header,
        transport,
        key: FlowKey {
            network: attachment.network,
            source: header.source(),
            destination: header.destination(),
            source_port,
            destination_port,
            protocol: u32::from(protocol),
        },
        l4,
        length,
        payload,
    }))
}
