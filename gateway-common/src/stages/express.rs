//! The express way, for what nearly all packets are: whole TCP segments and UDP datagrams without
//! options or extension headers, of an established flow. The headers are bounds-checked once, and
//! everything that could stand in the way is looked at before anything is changed: whatever is not
//! plain goes the general way from the start, which decides the same for these packets too.

use crate::{
    Environment, Family, Step, Turn,
    checksum::{update, update_udp},
    family::{Header as _, pseudo_header},
    flow::{FlowKey, FlowRef, PortPair, Realm, Table},
    maps::Attachment,
    packet::{Ethernet, Front, Tcp, TcpFlags, Udp, protocol},
    stages::{
        admission, attachment,
        established::note,
        forward, limit, next_hop,
        parse::{L3, Place, is_on_wire},
        transport::Segment,
    },
};

/// Sends the packet on if it is a plain one of an established flow, and turns it away if no flow is
/// there or can be opened for it.
#[inline(always)]
pub(super) fn express<F: Family, E: Environment>(env: &mut E) -> Step<Turn> {
    let attachment = attachment::find(env)?;
    let front = Front::at(env, L3 + usize::from(F::Header::OCTETS)).ok_or(Turn::WAY)?;
    let header = F::Header::within(front, L3).ok_or(Turn::WAY)?;
    match header.protocol() {
        protocol::TCP => carry::<F, Tcp, E>(env, &attachment),
        protocol::UDP => carry::<F, Udp, E>(env, &attachment),
        _ => Err(Turn::WAY),
    }
}

/// A transport protocol: what is plain in it, and how it is rewritten.
trait Transport: Copy {
    /// Its number.
    const PROTOCOL: u8;
    /// The fixed header's length.
    const LENGTH: usize;

    /// The header at `offset`.
    fn within(front: Front, offset: usize) -> Option<Self>;
    /// Both ports.
    fn ports(self) -> PortPair;
    /// The length that the pseudo header has of it, if the header is good, with so many bytes from
    /// its start on. `family` has no datagrams without checksum.
    fn length<F: Family>(self, payload: u16) -> Option<u16>;
    /// Whether it can open a flow, and is nothing within one but a mistake.
    fn only_opens(self) -> bool;
    /// Whether it leaves a flow as it is.
    fn is_plain(self) -> bool;
    /// Whether the checksum is no more than this sum, of the pseudo header.
    fn is_unfinished(self, pseudo: u16) -> bool;
    /// Notes what it says of its direction.
    fn note<F: Family>(self, flow: &FlowRef<F>);
    /// Replaces both ports and updates the checksum.
    fn rewrite(self, ports: PortPair, delta: u16);
}

impl Transport for Tcp {
    const PROTOCOL: u8 = protocol::TCP;
    const LENGTH: usize = Self::LENGTH;

    #[inline(always)]
    fn within(front: Front, offset: usize) -> Option<Self> {
        Self::within(front, offset)
    }

    #[inline(always)]
    fn ports(self) -> PortPair {
        self.ports()
    }

    #[inline(always)]
    fn length<F: Family>(self, payload: u16) -> Option<u16> {
        let header = self.header_length();
        (header >= Self::OCTETS && header <= payload).then_some(payload)
    }

    #[inline(always)]
    fn only_opens(self) -> bool {
        self.opens()
    }

    #[inline(always)]
    fn is_plain(self) -> bool {
        self.flags() & (TcpFlags::SYN | TcpFlags::RST) == 0
    }

    #[inline(always)]
    fn is_unfinished(self, pseudo: u16) -> bool {
        self.checksum().raw() == pseudo
    }

    #[inline(always)]
    fn note<F: Family>(self, flow: &FlowRef<F>) {
        note(flow, self);
    }

    #[inline(always)]
    fn rewrite(self, ports: PortPair, delta: u16) {
        self.set_checksum(update(self.checksum(), delta));
        self.set_ports(ports);
    }
}

impl Transport for Udp {
    const PROTOCOL: u8 = protocol::UDP;
    const LENGTH: usize = Self::LENGTH;

    #[inline(always)]
    fn within(front: Front, offset: usize) -> Option<Self> {
        Self::within(front, offset)
    }

    #[inline(always)]
    fn ports(self) -> PortPair {
        self.ports()
    }

    #[inline(always)]
    fn length<F: Family>(self, payload: u16) -> Option<u16> {
        let stated = self.length().get();
        let unchecked = F::ICMP == protocol::ICMPV6 && self.checksum().raw() == 0;
        (stated >= Self::OCTETS && stated <= payload && !unchecked).then_some(stated)
    }

    #[inline(always)]
    fn only_opens(self) -> bool {
        false
    }

    #[inline(always)]
    fn is_plain(self) -> bool {
        true
    }

    #[inline(always)]
    fn is_unfinished(self, pseudo: u16) -> bool {
        let checksum = self.checksum().raw();
        checksum != 0 && checksum == pseudo
    }

    #[inline(always)]
    fn note<F: Family>(self, _flow: &FlowRef<F>) {}

    #[inline(always)]
    fn rewrite(self, ports: PortPair, delta: u16) {
        self.set_checksum(update_udp(self.checksum(), delta));
        self.set_ports(ports);
    }
}

/// See [`express`]; `T` is the packet's transport protocol.
#[inline(always)]
fn carry<F: Family, T: Transport, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
) -> Step<Turn> {
    let l4 = L3 + usize::from(F::Header::OCTETS);
    let front = Front::at(env, l4 + T::LENGTH).ok_or(Turn::WAY)?;
    let (Some(ethernet), Some(header), Some(transport)) = (
        Ethernet::within(front, 0),
        F::Header::within(front, L3),
        T::within(front, l4),
    ) else {
        return Err(Turn::WAY);
    };
    if !ethernet.is_for(attachment.mac) {
        return Err(Turn::WAY);
    }
    let length = header.ordinary().ok_or(Turn::WAY)?;
    let payload = length.checked_sub(F::Header::OCTETS).ok_or(Turn::WAY)?;
    let counted = transport.length::<F>(payload).ok_or(Turn::WAY)?;
    // A frame of several buffers may hold more, behind what is here.
    if Front::at(env, L3 + usize::from(length)).is_none() {
        return Err(Turn::WAY);
    }
    let key = FlowKey::<F> {
        realm: Realm::new(attachment.network, T::PROTOCOL),
        source: header.source(),
        destination: header.destination(),
        ports: transport.ports(),
    };
    // What only opens a flow is turned away before any is looked for, other packets when none was found.
    let first = transport.only_opens();
    let mut found = None;
    if !first {
        found = F::flow(env, Table::Established, &key);
    }
    if found.is_none() {
        if !is_on_wire::<F>(key.source, key.destination) {
            return Err(Turn::WAY);
        }
        let segment = Segment::whole(key, T::PROTOCOL, Place::new(l4));
        admission::gate(env, attachment, &segment)?;
        if first {
            found = F::flow(env, Table::Established, &key);
        }
    }
    let flow = found.ok_or(Turn::MISSED)?;

    let fixed = flow.fixed();
    let link = env.link(fixed.link).ok_or(Turn::WAY)?;
    let hop = next_hop::of_established(env, &flow).ok_or(Turn::WAY)?;
    let egress = forward::egress(env, &flow, hop).ok_or(Turn::WAY)?;
    let pseudo = pseudo_header::<F>(key.source, key.destination, T::PROTOCOL, counted);
    if link.generation != fixed.generation
        || (F::ICMP == protocol::ICMPV6 && fixed.translated())
        || length > egress.mtu
        || header.hop_limit() <= 1
        || !transport.is_plain()
        || transport.is_unfinished(pseudo.fold_few())
    {
        return Err(Turn::WAY);
    }

    transport.note(&flow);
    limit::packet_of(env, &link, fixed.link, fixed.direction(), length)?;
    transport.rewrite(fixed.ports, fixed.payload_delta);
    header.age(fixed.header_delta);
    header.set_addresses(fixed.source, fixed.destination);
    ethernet.set_stations(hop.mac, egress.mac);
    flow.touch(env.now());
    env.count_crossing(fixed.link, fixed.direction(), length);
    Ok(Turn::redirect(hop.egress))
}
