//! Stage 8: addresses, ports, TTL, checksums and MAC addresses are rewritten. The checksums are
//! updated by RFC 1624 with the deltas that lie in the flow entry.
//!
//! A local sender behind a veth leaves TCP's and UDP's checksum to the hardware that it believes is
//! there: the field holds only the pseudo header's sum. Redirected like that, the packet would die
//! at the receiver; so it is recognised and completed here.

use crate::{
    Be16, Be32, DropReason, Environment, Family, Step, Turn,
    checksum::{self, Sum},
    family::{Header as _, pseudo_header},
    flow::FlowRef,
    maps::Statistic,
    packet::{Ethernet, FragmentHeader, TcpFlags, protocol},
    stages::{
        forward::Way,
        options,
        transport::{Segment, Transport},
    },
};

/// Rewrites the segment by its flow, within its family.
#[inline(always)]
pub(super) fn rewrite<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    way: &Way<'_, T>,
) -> Step<()> {
    let fixed = way.flow.fixed();
    let gone = Turn::drop(DropReason::Inconsistent, fixed.link);
    // Never none: an entry that is not translated has addresses of the family it was found for.
    let source = A::narrow(T::widen(fixed.source)).ok_or(gone)?;
    let destination = A::narrow(T::widen(fixed.destination)).ok_or(gone)?;
    transport(env, segment, way)?;
    let header = segment.header(env)?;
    header.age(fixed.header_delta);
    header.set_addresses(source, destination);
    if way.identification.is_new() {
        let id = way.identification.id();
        if A::ICMP == protocol::ICMP {
            header.set_id(id);
        } else {
            let at = segment.l4.minus(FragmentHeader::LENGTH).get();
            FragmentHeader::at(env, at)
                .ok_or(gone)?
                .set_id(Be32::new(id));
        }
    }
    let ethernet = Ethernet::at(env, 0).ok_or(Turn::drop(DropReason::Truncated, fixed.link))?;
    ethernet.set_stations(way.hop.mac, way.egress.mac);
    Ok(())
}

/// Rewrites ports and checksum.
#[inline(always)]
pub(super) fn transport<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    way: &Way<'_, T>,
) -> Step<()> {
    let fixed = way.flow.fixed();
    match segment.transport(env) {
        Transport::Tcp(tcp) => {
            let length = segment.payload;
            let mut whole = complete(env, segment, way.flow, tcp.checksum(), length)?;
            if tcp.flags() & TcpFlags::SYN != 0 {
                let delta = options::syn(env, segment, tcp, way.flow, way.segment_size);
                whole = checksum::update(whole, delta.fold());
            }
            tcp.set_checksum(checksum::update(whole, fixed.payload_delta));
            tcp.set_ports(fixed.ports);
        }
        Transport::Udp(udp) => {
            let given = udp.checksum();
            if given.raw() != 0 {
                let whole = complete(env, segment, way.flow, given, udp.length().get())?;
                // All ones and zero are the same sum, but zero would say "no checksum".
                let whole = if whole.raw() == 0 { !0 } else { whole.raw() };
                let updated = checksum::update_udp(Be16::from_raw(whole), fixed.payload_delta);
                udp.set_checksum(updated);
            }
            udp.set_ports(fixed.ports);
        }
        Transport::Rest => {}
    }
    Ok(())
}

/// The segment's whole checksum, completed if only the pseudo header's sum is there. Other segments
/// pay one comparison; one in 65,536 looks the same by chance and is summed up for nothing.
#[inline(always)]
fn complete<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    flow: &FlowRef<T>,
    given: Be16,
    length: u16,
) -> Step<Be16> {
    // Who makes fragments makes their checksum.
    if segment.pseudo_header(length).fold() != given.raw() || segment.fragment.is_part() {
        return Ok(given);
    }
    // The field itself contributes the pseudo header's sum.
    let sum = env
        .sum(segment.l4.get(), usize::from(length))
        .ok_or(Turn::drop(DropReason::ChecksumRepair, flow.fixed().link))?;
    env.count(Statistic::ChecksumsCompleted);
    Ok(sum.checksum())
}

impl<F: Family> Segment<F> {
    /// The sum over the pseudo header, as the segment came in.
    #[inline(always)]
    pub(super) fn pseudo_header(&self, length: u16) -> Sum {
        pseudo_header::<F>(self.key.source, self.key.destination, self.protocol, length)
    }
}
