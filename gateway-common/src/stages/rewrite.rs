//! Stage 8: addresses, ports, TTL, checksums and MAC addresses are rewritten. The checksums are
//! updated by RFC 1624 with the deltas that lie in the flow entry.
//!
//! A local sender behind a veth leaves TCP's and UDP's checksum to the hardware that it believes is
//! there: the field holds only the pseudo header's sum. Redirected like that, the packet would die
//! at the receiver; so it is recognised and completed here.

use crate::{
    Be16, DropReason, Environment, Family, Step, Verdict, checksum,
    family::{Header as _, pseudo_header},
    flow::FlowRef,
    maps::Statistic,
    packet::{Ethernet, Mac},
    stages::parse::{Segment, Transport},
};

/// Rewrites the segment by its flow, for the way from the station `from` to the station `to`.
#[inline(always)]
pub(super) fn rewrite<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    flow: &FlowRef<F>,
    from: Mac,
    to: Mac,
) -> Step<()> {
    let (fixed, header) = (flow.fixed(), segment.header);
    match segment.transport {
        Transport::Tcp(tcp) => {
            let length = segment.payload;
            let whole = complete(env, segment, flow, tcp.checksum(), length)?;
            tcp.set_checksum(checksum::update(whole, fixed.payload_delta));
            tcp.set_source_port(fixed.source_port);
            tcp.set_destination_port(fixed.destination_port);
        }
        Transport::Udp(udp) => {
            let given = udp.checksum();
            if given.raw() != 0 {
                let whole = complete(env, segment, flow, given, udp.length().get())?;
                // All ones and zero are the same sum, but zero would say "no checksum".
                let whole = if whole.raw() == 0 { !0 } else { whole.raw() };
                let updated = checksum::update_udp(Be16::from_raw(whole), fixed.payload_delta);
                udp.set_checksum(updated);
            }
            udp.set_source_port(fixed.source_port);
            udp.set_destination_port(fixed.destination_port);
        }
    }
    header.age(fixed.header_delta);
    header.set_addresses(fixed.source, fixed.destination);
    let ethernet = Ethernet::at(env, 0).ok_or(Verdict::Drop(DropReason::Truncated, fixed.link))?;
    ethernet.set_destination(to);
    ethernet.set_source(from);
    Ok(())
}

/// The segment's whole checksum, completed if only the pseudo header's sum is there. Other segments
/// pay one comparison; one in 65,536 looks the same by chance and is summed up for nothing.
#[inline(always)]
fn complete<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    flow: &FlowRef<F>,
    given: Be16,
    length: u16,
) -> Step<Be16> {
    let key = &segment.key;
    #[expect(clippy::cast_possible_truncation, reason = "it came from one byte")]
    let protocol = segment.key.protocol as u8;
    let pseudo = pseudo_header::<F>(key.source, key.destination, protocol, length);
    if pseudo.fold() != given.raw() {
        return Ok(given);
    }
    // The field itself contributes the pseudo header's sum.
    let sum = env
        .sum(segment.l4, usize::from(length))
        .ok_or(Verdict::Drop(DropReason::ChecksumRepair, flow.fixed().link))?;
    env.count(Statistic::ChecksumsCompleted);
    Ok(sum.checksum())
}
