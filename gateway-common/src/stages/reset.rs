//! A TCP segment that is not forwarded is answered with a reset (RFC 9293, section 3.10.7.1).

use core::ptr::NonNull;

use crate::{
    Be16, Be32, DropReason, Environment, Family, Verdict,
    family::{Header, pseudo_header},
    packet::{Ethernet, Tcp, TcpFlags, protocol},
    stages::{limit, parse::L3, transport::Segment},
};

/// The shortest Ethernet frame, without its check sequence.
const SHORTEST_FRAME: usize = 60;

/// Where the reset ends in the frame.
#[inline(always)]
fn end<F: Family>() -> usize {
    L3 + usize::from(F::Header::OCTETS) + Tcp::LENGTH
}

/// Turns the segment into the reset that answers it, or drops it.
#[inline(always)]
pub(super) fn answer<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    tcp: Tcp,
    reason: DropReason,
    link: u32,
) -> Verdict {
    let flags = tcp.flags();
    if flags & TcpFlags::RST != 0 || !limit::refusal(env, link) {
        return Verdict::Drop(reason, link);
    }
    let answer = if flags & TcpFlags::ACK != 0 {
        (tcp.acknowledgement(), Be32::new(0), TcpFlags::RST)
    } else {
        let payload = segment.payload - tcp.header_length();
        let occupied = u32::from(payload)
            + u32::from(flags & TcpFlags::SYN != 0)
            + u32::from(flags & TcpFlags::FIN != 0);
        let next = tcp.sequence().get().wrapping_add(occupied);
        (Be32::new(0), Be32::new(next), TcpFlags::RST | TcpFlags::ACK)
    };
    // A frame that has extension headers is longer than the reset, and one that is shorter than the
    // shortest is left so.
    let length = end::<F>().max(SHORTEST_FRAME);
    if env.packet_length() > length && !env.resize(length) {
        return Verdict::Drop(DropReason::ReplyFailed, link);
    }
    match write(env, segment, answer) {
        Some(()) => Verdict::Reset(reason, link),
        None => Verdict::Drop(DropReason::ReplyFailed, link),
    }
}

/// Writes the reset over the segment. The windows are taken anew: cutting the frame voids them.
#[inline(always)]
fn write<F: Family, E: Environment>(
    env: &E,
    segment: &Segment<F>,
    (sequence, acknowledgement, flags): (Be32, Be32, u8),
) -> Option<()> {
    let ethernet = Ethernet::at(env, 0)?;
    let header = F::Header::at(env, L3)?;
    let tcp = Tcp::at(env, L3 + usize::from(F::Header::OCTETS))?;
    let key = &segment.key;

    // The frame was for our own address, so turning it round needs no other.
    ethernet.turn_round(ethernet.destination());
    header.write(key.destination, key.source, protocol::TCP, Tcp::OCTETS);

    const WORDS: u8 = 5;
    const { assert!(WORDS as usize * 4 == Tcp::LENGTH) };
    tcp.set_ports(key.ports.swapped());
    tcp.set_sequence(sequence);
    tcp.set_acknowledgement(acknowledgement);
    tcp.set_data_offset(WORDS << 4);
    tcp.set_flags(flags);
    tcp.set_window(Be16::new(0));
    tcp.set_urgent(Be16::new(0));
    let sum = pseudo_header::<F>(key.source, key.destination, protocol::TCP, Tcp::OCTETS)
        .be32(key.ports.to_wire())
        .be32(sequence)
        .be32(acknowledgement)
        .be16(Be16::new(u16::from_be_bytes([WORDS << 4, flags])));
    tcp.set_checksum(sum.checksum());

    if let Some(padding) = SHORTEST_FRAME.checked_sub(end::<F>())
        && let Some(start) = env.packet(end::<F>(), padding)
    {
        clear(start, padding);
    }
    Some(())
}

/// Clears the frame's padding, so that none of the segment's bytes stay behind the reset.
#[inline(always)]
fn clear(start: NonNull<u8>, length: usize) {
    // SAFETY: as many bytes as were checked when the pointer was taken.
    unsafe { start.write_bytes(0, length) }
}
