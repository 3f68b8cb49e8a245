//! Rewriting within an address family: addresses, ports, TTL, checksums and MAC addresses. Checksums are updated by
//! the deltas in the flow entry (RFC 1624).
//!
//! A local sender behind a veth leaves the TCP or UDP checksum to offload (`CHECKSUM_PARTIAL`): the field holds only
//! the sum of the pseudo header. XDP redirects the packet without completing the checksum, so the receiver would drop
//! it. Such packets are detected and their checksum is completed here.

use crate::{
    byte_order::{Be16, Be32},
    checksum::{self, Sum},
    drop_reason::DropReason,
    family::{Family, Header as _, pseudo_header},
    flow::FlowRef,
    maps::Statistic,
    packet::{Ethernet, FragmentHeader, TcpFlags, protocol},
    pipeline::{
        forward::{decision::ForwardingDecision, tcp_options},
        ingress::l4::{L4Header, L4Packet},
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Rewrites a packet by its flow, within its family.
#[inline(always)]
pub(crate) fn rewrite_packet<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    decision: &ForwardingDecision<'_, T>,
) -> StageResult<()> {
    let entry = decision.flow.entry();
    let config_race = Exit::drop(DropReason::ConfigRace, entry.connection_slot());
    // Never missing: an entry that is not of a NAT46 flow has addresses of the packet's family.
    let source = A::from_mapped(T::to_mapped(entry.source)).ok_or(config_race)?;
    let destination = A::from_mapped(T::to_mapped(entry.destination)).ok_or(config_race)?;
    rewrite_l4(env, packet, decision)?;
    let header = packet.header(env)?;
    header.decrement_ttl(entry.ip_csum_delta(packet.key.ports));
    header.set_addresses(source, destination);
    if decision.identification.is_new() {
        let id = decision.identification.id();
        if A::ICMP == protocol::ICMP {
            header.set_id(id);
        } else {
            let at = packet.l4_offset.minus(FragmentHeader::LEN).get();
            FragmentHeader::at(env, at)
                .ok_or(config_race)?
                .set_id(Be32::new(id));
        }
    }
    let ethernet =
        Ethernet::at(env, 0).ok_or(Exit::drop(DropReason::Truncated, entry.connection_slot()))?;
    ethernet.set_macs(decision.next_hop.mac, decision.egress.mac);
    Ok(())
}

/// Rewrites the ports and the checksum of the L4 header.
#[inline(always)]
pub(crate) fn rewrite_l4<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    decision: &ForwardingDecision<'_, T>,
) -> StageResult<()> {
    let entry = decision.flow.entry();
    match packet.l4_header(env) {
        L4Header::Tcp(tcp) => {
            let length = packet.payload_len;
            let mut checksum =
                finish_offloaded_checksum(env, packet, decision.flow, tcp.checksum(), length)?;
            if tcp.flags() & TcpFlags::SYN != 0 {
                let delta = tcp_options::clamp_mss(
                    env,
                    packet,
                    tcp,
                    decision.flow,
                    decision.max_segment_size,
                );
                checksum = checksum::update(checksum, delta.fold());
            }
            tcp.set_checksum(checksum::update(checksum, entry.l4_csum_delta));
            tcp.set_ports(entry.ports);
        }
        L4Header::Udp(udp) => {
            let checksum = udp.checksum();
            if checksum.raw() != 0 {
                let completed = finish_offloaded_checksum(
                    env,
                    packet,
                    decision.flow,
                    checksum,
                    udp.length().get(),
                )?;
                // All ones and zero are the same sum, but a zero means "no checksum".
                let nonzero = if completed.raw() == 0 {
                    !0
                } else {
                    completed.raw()
                };
                let updated = checksum::update_udp(Be16::from_raw(nonzero), entry.l4_csum_delta);
                udp.set_checksum(updated);
            }
            udp.set_ports(entry.ports);
        }
        L4Header::None => {}
    }
    Ok(())
}

/// Returns the packet's checksum, completed if its field holds only the sum of the pseudo header.
///
/// Other packets cost one comparison. One in 65,536 has that value by chance, and is summed up for nothing.
#[inline(always)]
fn finish_offloaded_checksum<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    flow: &FlowRef<T>,
    checksum: Be16,
    length: u16,
) -> StageResult<Be16> {
    // A sender that fragments a datagram computes its checksum in software.
    if packet.pseudo_header(length).fold() != checksum.raw() || packet.fragment.is_fragment() {
        return Ok(checksum);
    }
    // The field itself contributes the sum of the pseudo header.
    let sum = env
        .partial_checksum(packet.l4_offset.get(), usize::from(length))
        .ok_or(Exit::drop(
            DropReason::ChecksumOffloadFailed,
            flow.entry().connection_slot(),
        ))?;
    env.count(Statistic::ChecksumsCompleted);
    Ok(sum.checksum())
}

impl<F: Family> L4Packet<F> {
    /// Returns the sum over the pseudo header of the packet as it arrived.
    #[inline(always)]
    pub(crate) fn pseudo_header(&self, length: u16) -> Sum {
        pseudo_header::<F>(self.key.source, self.key.destination, self.protocol, length)
    }
}
