//! The fast path: forwards whole TCP segments and UDP datagrams of established flows.
//!
//! Nearly all packets are of this kind. The headers are bounds-checked once, and one look-up finds the flow. All
//! checks precede the first change, so a packet that is not eligible continues on the slow path unchanged. The slow
//! path decides alike for eligible packets too.
//!
//! Not eligible are: fragments and IPv4 packets that a router may fragment, IPv4 options, IPv6 extension headers, SYN,
//! FIN and RST segments of established flows, segments that may acknowledge a FIN, offloaded checksums, packets over the MTU or with an expiring TTL, packets of
//! a client that has moved, NAT46 flows, and flows that have ended.
//!
//! The early drop applies here to packets of no flow, so that a flood ends before the slow path.

use crate::{
    checksum::{update, update_udp},
    drop_reason::DropReason,
    family::{Family, Header as _, pseudo_header},
    flow::{FlowKey, FlowRef, NetworkProto, PlaceState, table},
    maps::Attachment,
    packet::{Ethernet, LinearData, PortPair, Tcp, TcpFlags, Udp, protocol},
    pipeline::{
        conntrack::{
            return_path,
            tcp::{record_ack, record_flags},
        },
        forward::next_hop,
        ingress::{
            attachment,
            ip_packet::{L3_OFFSET, L4Offset},
            l4::L4Packet,
            parse::are_wire_addresses,
        },
        open::early_drop::early_drop,
        rate_limit,
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Forwards an eligible packet of an established flow. Applies the early drop to a packet of no flow.
#[inline(always)]
pub(crate) fn run<F: Family, E: PlatformFor<F>>(env: &mut E) -> StageResult<Exit> {
    let attachment = attachment::find_attachment(env)?;
    let linear =
        LinearData::at(env, L3_OFFSET + usize::from(F::Header::LEN_U16)).ok_or(Exit::SLOW_PATH)?;
    let header = F::Header::within(linear, L3_OFFSET).ok_or(Exit::SLOW_PATH)?;
    match header.protocol() {
        protocol::TCP => forward_established::<F, Tcp, E>(env, &attachment),
        protocol::UDP => forward_established::<F, Udp, E>(env, &attachment),
        _ => Err(Exit::SLOW_PATH),
    }
}

/// An L4 protocol on the fast path: its conditions for eligibility, and its rewriting.
trait FastPathL4: Copy {
    /// IP protocol number.
    const PROTOCOL: u8;
    /// Length of the fixed header.
    const LEN: usize;

    /// Returns the header at `offset` of bytes that were bounds-checked.
    fn within(linear: LinearData, offset: usize) -> Option<Self>;
    /// Returns the source and the destination port.
    fn ports(self) -> PortPair;
    /// Returns the length that the pseudo header contains, if the header is valid with `payload` bytes from its start
    /// on. IPv6 has no datagrams without checksum.
    fn checksum_len<F: Family>(self, payload: u16) -> Option<u16>;
    /// Returns true for a packet that can only open a flow: a SYN without ACK, RST and FIN.
    fn is_initial_syn(self) -> bool;
    /// Returns true if the packet does not open or end a flow.
    fn keeps_flow_state(self) -> bool;
    /// Returns true if the checksum field holds only the sum of the pseudo header: the checksum was offloaded.
    fn is_checksum_offloaded(self, pseudo_sum: u16) -> bool;
    /// Updates the TCP state of the packet's direction.
    fn update_state<F: Family>(self, flow: &mut FlowRef<F>);
    /// Replaces both ports and updates the checksum by a delta.
    fn rewrite(self, ports: PortPair, delta: u16);
}

impl FastPathL4 for Tcp {
    const PROTOCOL: u8 = protocol::TCP;
    const LEN: usize = Self::LEN;

    #[inline(always)]
    fn within(linear: LinearData, offset: usize) -> Option<Self> {
        Self::within(linear, offset)
    }

    #[inline(always)]
    fn ports(self) -> PortPair {
        self.ports()
    }

    #[inline(always)]
    fn checksum_len<F: Family>(self, payload: u16) -> Option<u16> {
        let header = self.header_length();
        (header >= Self::LEN_U16 && header <= payload).then_some(payload)
    }

    #[inline(always)]
    fn is_initial_syn(self) -> bool {
        self.is_initial_syn()
    }

    #[inline(always)]
    fn keeps_flow_state(self) -> bool {
        self.flags() & (TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN) == 0
    }

    #[inline(always)]
    fn is_checksum_offloaded(self, pseudo_sum: u16) -> bool {
        self.checksum().raw() == pseudo_sum
    }

    #[inline(always)]
    fn update_state<F: Family>(self, flow: &mut FlowRef<F>) {
        record_ack(flow, self);
        record_flags(flow, self.flags());
    }

    #[inline(always)]
    fn rewrite(self, ports: PortPair, delta: u16) {
        self.set_checksum(update(self.checksum(), delta));
        self.set_ports(ports);
    }
}

impl FastPathL4 for Udp {
    const PROTOCOL: u8 = protocol::UDP;
    const LEN: usize = Self::LEN;

    #[inline(always)]
    fn within(linear: LinearData, offset: usize) -> Option<Self> {
        Self::within(linear, offset)
    }

    #[inline(always)]
    fn ports(self) -> PortPair {
        self.ports()
    }

    #[inline(always)]
    fn checksum_len<F: Family>(self, payload: u16) -> Option<u16> {
        let udp_length = self.length().get();
        let has_no_checksum = F::ICMP == protocol::ICMPV6 && self.checksum().raw() == 0;
        (udp_length >= Self::LEN_U16 && udp_length <= payload && !has_no_checksum)
            .then_some(udp_length)
    }

    #[inline(always)]
    fn is_initial_syn(self) -> bool {
        false
    }

    #[inline(always)]
    fn keeps_flow_state(self) -> bool {
        true
    }

    #[inline(always)]
    fn is_checksum_offloaded(self, pseudo_sum: u16) -> bool {
        let checksum = self.checksum().raw();
        checksum != 0 && checksum == pseudo_sum
    }

    #[inline(always)]
    fn update_state<F: Family>(self, _flow: &mut FlowRef<F>) {}

    #[inline(always)]
    fn rewrite(self, ports: PortPair, delta: u16) {
        self.set_checksum(update_udp(self.checksum(), delta));
        self.set_ports(ports);
    }
}

/// Forwards a packet of the L4 protocol `T` by its established flow: see [`run`].
#[inline(always)]
fn forward_established<F: Family, T: FastPathL4, E: PlatformFor<F>>(
    env: &mut E,
    attachment: &Attachment,
) -> StageResult<Exit> {
    let l4_offset = L3_OFFSET + usize::from(F::Header::LEN_U16);
    let linear = LinearData::at(env, l4_offset + T::LEN).ok_or(Exit::SLOW_PATH)?;
    let (Some(ethernet), Some(header), Some(l4)) = (
        Ethernet::within(linear, 0),
        F::Header::within(linear, L3_OFFSET),
        T::within(linear, l4_offset),
    ) else {
        return Err(Exit::SLOW_PATH);
    };
    if !ethernet.is_addressed_to(attachment.mac) {
        return Err(Exit::SLOW_PATH);
    }
    let length = header.fast_path_len().ok_or(Exit::SLOW_PATH)?;
    let payload = length
        .checked_sub(F::Header::LEN_U16)
        .ok_or(Exit::SLOW_PATH)?;
    let checksum_len = l4.checksum_len::<F>(payload).ok_or(Exit::SLOW_PATH)?;
    // A frame of several buffers may hold more bytes behind the linear data.
    if LinearData::at(env, L3_OFFSET + usize::from(length)).is_none() {
        return Err(Exit::SLOW_PATH);
    }
    let key = FlowKey::<F> {
        network_proto: NetworkProto::new(attachment.network, T::PROTOCOL),
        source: header.source(),
        destination: header.destination(),
        ports: l4.ports(),
    };
    // A SYN passes the early drop before the table is searched, any other packet only if no flow was found.
    let is_initial_syn = l4.is_initial_syn();
    let mut found = None;
    if !is_initial_syn {
        found = table::lookup::<F, E>(env, &key);
    }
    if found.is_none() {
        if !are_wire_addresses::<F>(key.source, key.destination) {
            return Err(Exit::SLOW_PATH);
        }
        let packet = L4Packet::for_admission(key, T::PROTOCOL, L4Offset::new(l4_offset));
        early_drop(env, attachment, &packet)?;
        if is_initial_syn {
            found = table::lookup::<F, E>(env, &key);
        }
    }
    let mut flow = found.ok_or(Exit::NO_FLOW)?;
    if !flow.control.is(PlaceState::Established) {
        return Err(Exit::SLOW_PATH);
    }

    let connection_slot = flow.entry().connection_slot();
    let connection = env.connection(connection_slot).ok_or(Exit::SLOW_PATH)?;
    let hop = next_hop::established_next_hop(env, &flow, &connection, T::PROTOCOL)
        .ok_or(Exit::SLOW_PATH)?;
    let egress = next_hop::lookup_egress(env, hop).ok_or(Exit::SLOW_PATH)?;
    let pseudo_sum = pseudo_header::<F>(key.source, key.destination, T::PROTOCOL, checksum_len);
    if !flow.entry().is_of_connection(connection.generation)
        || (F::ICMP == protocol::ICMPV6 && flow.entry().is_nat46())
        || length > egress.mtu
        || header.hop_limit() <= 1
        || !l4.keeps_flow_state()
        || return_path::has_changed(&flow, return_path::of_packet(ethernet, attachment.slot))
        || l4.is_checksum_offloaded(pseudo_sum.fold_short())
    {
        return Err(Exit::SLOW_PATH);
    }

    l4.update_state(&mut flow);
    let entry = flow.entry();
    let direction = entry.direction();
    rate_limit::check_packet(env, &connection, connection_slot, direction, length)?;
    l4.rewrite(entry.ports, entry.l4_csum_delta);
    header.decrement_ttl(entry.ip_csum_delta(key.ports));
    header.set_addresses(entry.source, entry.destination);
    ethernet.set_macs(hop.mac, egress.mac);
    if !flow.is_current() {
        return Err(Exit::drop(DropReason::ConfigRace, connection_slot));
    }
    flow.touch(env.cached_now());
    env.count_forwarded(connection_slot, direction, length);
    Ok(Exit::redirect(hop.egress_slot))
}
