//! Addresses, ports, TTL, checksums and MAC addresses are rewritten. The checksums are
//! updated by RFC 1624 with the deltas that lie in the flow entry.
//!
//! A local sender behind a veth leaves TCP's and UDP's checksum to the hardware that it believes is
//! there: the field holds only the pseudo header's sum. Redirected like that, the packet would die
//! at the receiver; so it is recognised and completed here.

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

/// Rewrites the segment by its flow, within its family.
#[inline(always)]
pub(crate) fn rewrite_packet<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    decision: &ForwardingDecision<'_, T>,
) -> StageResult<()> {
    let entry = decision.flow.entry();
    let config_race = Exit::drop(DropReason::ConfigRace, entry.connection_slot);
    // Never none: an entry that is not translated has addresses of the family it was found for.
    let source = A::from_mapped(T::to_mapped(entry.source)).ok_or(config_race)?;
    let destination = A::from_mapped(T::to_mapped(entry.destination)).ok_or(config_race)?;
    rewrite_l4(env, packet, decision)?;
    let header = packet.header(env)?;
    header.decrement_ttl(entry.ip_csum_delta);
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
        Ethernet::at(env, 0).ok_or(Exit::drop(DropReason::Truncated, entry.connection_slot))?;
    ethernet.set_macs(decision.next_hop.mac, decision.egress.mac);
    Ok(())
}

/// Rewrites ports and checksum.
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
                // All ones and zero are the same sum, but zero would say "no checksum".
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

/// The segment's whole checksum, completed if only the pseudo header's sum is there. Other segments
/// pay one comparison; one in 65,536 looks the same by chance and is summed up for nothing.
#[inline(always)]
fn finish_offloaded_checksum<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    flow: &FlowRef<T>,
    checksum: Be16,
    length: u16,
) -> StageResult<Be16> {
    // Who makes fragments makes their checksum.
    if packet.pseudo_header(length).fold() != checksum.raw() || packet.fragment.is_fragment() {
        return Ok(checksum);
    }
    // The field itself contributes the pseudo header's sum.
    let sum = env
        .partial_checksum(packet.l4_offset.get(), usize::from(length))
        .ok_or(Exit::drop(
            DropReason::ChecksumOffloadFailed,
            flow.entry().connection_slot,
        ))?;
    env.count(Statistic::ChecksumsCompleted);
    Ok(sum.checksum())
}

impl<F: Family> L4Packet<F> {
    /// The sum over the pseudo header, as the segment came in.
    #[inline(always)]
    pub(crate) fn pseudo_header(&self, length: u16) -> Sum {
        pseudo_header::<F>(self.key.source, self.key.destination, self.protocol, length)
    }
}
