//! Stage 2, continued: the transport header, bounds-checked once.

use core::marker::PhantomData;

use crate::{
    Be16, DropReason, Environment, Family, Step, Turn,
    family::Header as _,
    flow::{FlowKey, PortPair, Realm},
    maps::{Attachment, NO_LINK},
    packet::{Icmp, Tcp, TcpFlags, Udp, protocol},
    stages::parse::{Fragment, Packet, Place, header, refuse},
};

/// An ICMP message with its headers.
pub(super) struct Message<F: Family> {
    family: PhantomData<F>,
    kind: Be16,
    /// Where the message starts.
    pub(super) at: Place,
    /// The message's length in bytes.
    pub(super) length: u16,
    pub(super) fragment: Fragment,
}

impl<F: Family> Message<F> {
    /// The network header.
    #[inline(always)]
    pub(super) fn header<E: Environment>(&self, env: &E) -> Step<F::Header> {
        header::<F, E>(env)
    }

    /// The ICMP header.
    #[inline(always)]
    pub(super) fn icmp<E: Environment>(&self, env: &E) -> Step<Icmp> {
        Icmp::at(env, self.at.get()).ok_or(Turn::drop(DropReason::Truncated, NO_LINK))
    }

    /// Whether it is an error about another packet.
    #[inline(always)]
    pub(super) fn is_error(&self) -> bool {
        if F::ICMP == protocol::ICMPV6 {
            Icmp::is_error_v6(self.kind)
        } else {
            Icmp::is_error(self.kind)
        }
    }
}

/// A TCP segment or UDP datagram, or a later fragment of one.
pub(super) struct Segment<F: Family> {
    pub(super) key: FlowKey<F>,
    /// 6 (TCP) or 17 (UDP).
    pub(super) protocol: u8,
    /// Where the transport header starts.
    pub(super) l4: Place,
    /// The IP packet's length in bytes.
    pub(super) length: u16,
    /// How much of that is the transport header and what is behind it.
    pub(super) payload: u16,
    pub(super) fragment: Fragment,
}

/// The transport header.
#[derive(Clone, Copy)]
pub(super) enum Transport {
    Tcp(Tcp),
    Udp(Udp),
    /// None: a later fragment.
    Rest,
}

impl<F: Family> Segment<F> {
    /// Puts it together; the ports are those that [`ports`] or a first fragment gave.
    #[inline(always)]
    pub(super) fn new<E: Environment>(
        env: &E,
        attachment: &Attachment,
        packet: &Packet<F>,
        ports: PortPair,
    ) -> Step<Self> {
        let header = packet.header(env)?;
        Ok(Self {
            key: FlowKey {
                realm: Realm::new(attachment.network, packet.protocol),
                source: header.source(),
                destination: header.destination(),
                ports,
            },
            protocol: packet.protocol,
            l4: packet.l4,
            length: packet.length,
            payload: packet.payload,
            fragment: packet.fragment,
        })
    }

    /// What admission asks of a segment: it is no fragment, and its lengths don't matter.
    #[inline(always)]
    pub(super) const fn whole(key: FlowKey<F>, protocol: u8, l4: Place) -> Self {
        Self {
            key,
            protocol,
            l4,
            length: 0,
            payload: 0,
            fragment: Fragment::NONE,
        }
    }

    /// The network header.
    #[inline(always)]
    pub(super) fn header<E: Environment>(&self, env: &E) -> Step<F::Header> {
        header::<F, E>(env)
    }

    /// The transport header.
    #[inline(always)]
    pub(super) fn transport<E: Environment>(&self, env: &E) -> Transport {
        if self.fragment.is_later() {
            return Transport::Rest;
        }
        if self.protocol == protocol::TCP {
            Tcp::at(env, self.l4.get()).map_or(Transport::Rest, Transport::Tcp)
        } else {
            Udp::at(env, self.l4.get()).map_or(Transport::Rest, Transport::Udp)
        }
    }

    /// The TCP header, if it is TCP.
    #[inline(always)]
    pub(super) fn tcp<E: Environment>(&self, env: &E) -> Option<Tcp> {
        if self.protocol == protocol::TCP && !self.fragment.is_later() {
            Tcp::at(env, self.l4.get())
        } else {
            None
        }
    }

    /// Whether a segment like this may open a flow: a SYN alone, or any datagram.
    #[inline(always)]
    pub(super) fn opens<E: Environment>(&self, env: &E) -> bool {
        match self.transport(env) {
            Transport::Tcp(tcp) => tcp.opens(),
            Transport::Udp(_) => true,
            Transport::Rest => false,
        }
    }

    /// Whether it is a SYN, which has options that no other segment has.
    #[inline(always)]
    pub(super) fn synchronizes<E: Environment>(&self, env: &E) -> bool {
        self.tcp(env)
            .is_some_and(|tcp| tcp.flags() & TcpFlags::SYN != 0)
    }
}

/// Whether the protocol is one that the gateway knows.
#[inline(always)]
pub(super) const fn is_known<F: Family>(protocol: u8) -> bool {
    protocol == protocol::TCP || protocol == protocol::UDP || protocol == F::ICMP
}

/// The ICMP message in the packet.
#[inline(always)]
pub(super) fn message<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    packet: &Packet<F>,
) -> Step<Message<F>> {
    if packet.payload < Icmp::OCTETS {
        return Err(refuse(env, attachment, packet, DropReason::Malformed));
    }
    match Icmp::at(env, packet.l4.get()) {
        Some(icmp) => Ok(Message {
            family: PhantomData,
            kind: icmp.type_and_code(),
            at: packet.l4,
            length: packet.payload,
            fragment: packet.fragment,
        }),
        None => Err(refuse(env, attachment, packet, DropReason::Truncated)),
    }
}

/// The ports of the segment or datagram in the packet, which is whole or a first fragment. Judges
/// the transport header.
#[inline(always)]
pub(super) fn ports<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    packet: &Packet<F>,
) -> Step<PortPair> {
    let read = if packet.protocol == protocol::TCP {
        tcp(env, packet)
    } else {
        udp(env, packet)
    };
    read.map_err(|reason| refuse(env, attachment, packet, reason))
}

/// A first fragment must have the whole transport header (RFC 1858; RFC 8200, section 4.5).
#[inline(always)]
const fn too_short<F: Family>(packet: &Packet<F>) -> DropReason {
    if packet.fragment.is_first() {
        DropReason::Fragment
    } else {
        DropReason::Malformed
    }
}

#[inline(always)]
fn tcp<F: Family, E: Environment>(env: &E, packet: &Packet<F>) -> Result<PortPair, DropReason> {
    let Some(tcp) = Tcp::at(env, packet.l4.get()) else {
        return Err(if packet.fragment.is_first() {
            DropReason::Fragment
        } else {
            DropReason::Truncated
        });
    };
    let header = tcp.header_length();
    if header < Tcp::OCTETS {
        return Err(DropReason::Malformed);
    }
    if header > packet.payload {
        return Err(too_short(packet));
    }
    Ok(tcp.ports())
}

#[inline(always)]
fn udp<F: Family, E: Environment>(env: &E, packet: &Packet<F>) -> Result<PortPair, DropReason> {
    let udp = Udp::at(env, packet.l4.get()).ok_or(DropReason::Truncated)?;
    let stated = udp.length().get();
    // IPv6 has no datagrams without checksum (RFC 8200, section 8.1).
    let unchecked = F::ICMP == protocol::ICMPV6 && udp.checksum().raw() == 0;
    // The rest of a fragmented one is elsewhere.
    let beyond = stated > packet.payload && !packet.fragment.is_first();
    if stated < Udp::OCTETS || beyond || unchecked || packet.payload < Udp::OCTETS {
        return Err(DropReason::Malformed);
    }
    Ok(udp.ports())
}
