//! Stage 2: what kind of packet it is. Headers are bounds-checked here, once.
//!
//! Guarantees to the stages behind it: the frame was sent to our own hardware address (ARP: or to
//! all), the IPv4 header has no options, the total length covers the headers and lies within the
//! frame, and the packet is no fragment. A packet that fails one of these is dropped if it is for
//! an address of ours or the attachment is isolated; otherwise it is the host's.

use crate::{
    Be16, Be32, DropReason, Environment, Step, Verdict,
    flow::FlowKey,
    maps::{AddressKey, Attachment, NO_LINK},
    packet::{Arp, EtherType, Ethernet, Ipv4, Tcp, Udp, protocol},
};

/// Where the network header starts.
pub(super) const L3: usize = Ethernet::LENGTH;
/// Where the transport header starts.
pub(super) const L4: usize = L3 + Ipv4::LENGTH;

/// A packet that can concern us.
pub(super) enum Arrival {
    /// ARP.
    Arp(Arp),
    /// ICMP over IPv4.
    Icmp(Ipv4),
    /// TCP or UDP over IPv4.
    Segment(Segment),
}

/// A TCP segment or UDP datagram with its headers.
pub(super) struct Segment {
    pub(super) ipv4: Ipv4,
    pub(super) transport: Transport,
    pub(super) key: FlowKey,
    /// The IP packet's length in bytes.
    pub(super) length: u16,
}

/// The transport header.
#[derive(Clone, Copy)]
pub(super) enum Transport {
    Tcp(Tcp),
    Udp(Udp),
}

impl Segment {
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
            address: self.key.destination,
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
fn refuse<E: Environment>(
    env: &E,
    attachment: &Attachment,
    ipv4: Ipv4,
    reason: DropReason,
) -> Verdict {
    let key = AddressKey {
        network: attachment.network,
        address: ipv4.destination(),
    };
    match env.address(&key) {
        Some(address) => Verdict::Drop(reason, address.link),
        None => not_ours(attachment, reason),
    }
}

/// Tells what the frame is.
#[inline(always)]
pub(super) fn parse<E: Environment>(env: &E, attachment: &Attachment) -> Step<Arrival> {
    let truncated = || not_ours(attachment, DropReason::Truncated);
    let ethernet = Ethernet::at(env, 0).ok_or_else(truncated)?;
    let ether_type = ethernet.ether_type();
    if ether_type != EtherType::IPV4 {
        return match ether_type {
            EtherType::ARP => {
                let arp = Arp::at(env, L3).ok_or_else(truncated)?;
                Ok(Arrival::Arp(arp))
            }
            EtherType::VLAN | EtherType::SERVICE_VLAN => {
                Err(not_ours(attachment, DropReason::VlanTagged))
            }
            _ => Err(not_ours(attachment, DropReason::EtherTypeUnsupported)),
        };
    }
    let ipv4 = Ipv4::at(env, L3).ok_or_else(truncated)?;
    if ethernet.destination() != attachment.mac {
        return Err(not_ours(attachment, DropReason::DestinationMac));
    }
    if ipv4.version_ihl() != Ipv4::PLAIN {
        let options = ipv4.version_ihl() > Ipv4::PLAIN && ipv4.version_ihl() <= 0x4f;
        let reason = if options {
            DropReason::Ipv4Options
        } else {
            DropReason::Malformed
        };
        return Err(refuse(env, attachment, ipv4, reason));
    }
    let length = ipv4.total_length().get();
    if usize::from(length) < Ipv4::LENGTH {
        return Err(refuse(env, attachment, ipv4, DropReason::Malformed));
    }
    if L3 + usize::from(length) > env.packet_length() {
        return Err(refuse(env, attachment, ipv4, DropReason::Truncated));
    }
    if ipv4.is_fragment() {
        return Err(refuse(env, attachment, ipv4, DropReason::Fragment));
    }
    let payload = length - Ipv4::OCTETS;
    match ipv4.protocol() {
        protocol::TCP => {
            let Some(tcp) = Tcp::at(env, L4) else {
                return Err(refuse(env, attachment, ipv4, DropReason::Truncated));
            };
            let header = tcp.header_length();
            if usize::from(header) < Tcp::LENGTH || header > payload {
                return Err(refuse(env, attachment, ipv4, DropReason::Malformed));
            }
            let ports = (tcp.source_port(), tcp.destination_port());
            let key = flow_key(attachment, ipv4.source(), ipv4.destination(), ports);
            Ok(Arrival::Segment(Segment {
                ipv4,
                transport: Transport::Tcp(tcp),
                key: FlowKey {
                    protocol: u32::from(protocol::TCP),
                    ..key
                },
                length,
            }))
        }
        protocol::UDP => {
            let Some(udp) = Udp::at(env, L4) else {
                return Err(refuse(env, attachment, ipv4, DropReason::Truncated));
            };
            let stated = udp.length().get();
            if usize::from(stated) < Udp::LENGTH || stated > payload {
                return Err(refuse(env, attachment, ipv4, DropReason::Malformed));
            }
            let ports = (udp.source_port(), udp.destination_port());
            let key = flow_key(attachment, ipv4.source(), ipv4.destination(), ports);
            Ok(Arrival::Segment(Segment {
                ipv4,
                transport: Transport::Udp(udp),
                key: FlowKey {
                    protocol: u32::from(protocol::UDP),
                    ..key
                },
                length,
            }))
        }
        protocol::ICMP => Ok(Arrival::Icmp(ipv4)),
        _ => Err(refuse(
            env,
            attachment,
            ipv4,
            DropReason::ProtocolUnsupported,
        )),
    }
}

#[inline(always)]
fn flow_key(
    attachment: &Attachment,
    source: Be32,
    destination: Be32,
    (source_port, destination_port): (Be16, Be16),
) -> FlowKey {
    FlowKey {
        network: attachment.network,
        source,
        destination,
        source_port,
        destination_port,
        protocol: 0,
    }
}
