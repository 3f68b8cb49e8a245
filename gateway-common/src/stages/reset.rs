//! A TCP segment that is not forwarded is answered with a reset (RFC 9293, section 3.10.7.1), so
//! that no peer waits for what will not come. Anything else is dropped.

use core::ptr::NonNull;

use crate::{
    Be16, Be32, DropReason, Environment, Verdict,
    checksum::{self, Sum},
    packet::{Ethernet, Ipv4, Tcp, TcpFlags, protocol},
    stages::parse::{L3, L4, Segment, Transport},
};

/// The reset's length as an IP packet.
const LENGTH: u16 = Ipv4::OCTETS + Tcp::OCTETS;
/// Where the reset ends in the frame.
const END: usize = L4 + Tcp::LENGTH;
/// The shortest Ethernet frame, without its check sequence.
const SHORTEST_FRAME: usize = 60;

/// Turns the segment into the reset that answers it, or drops it.
#[inline(always)]
pub(super) fn refuse<E: Environment>(
    env: &mut E,
    segment: &Segment,
    reason: DropReason,
    link: u32,
) -> Verdict {
    let Transport::Tcp(tcp) = segment.transport else {
        return Verdict::Drop(reason, link);
    };
    let flags = tcp.flags();
    if flags & TcpFlags::RST != 0 {
        return Verdict::Drop(reason, link);
    }
    let answer = if flags & TcpFlags::ACK != 0 {
        (tcp.acknowledgement(), Be32::new(0), TcpFlags::RST)
    } else {
        let payload = segment.length - Ipv4::OCTETS - tcp.header_length();
        let occupied = u32::from(payload)
            + u32::from(flags & TcpFlags::SYN != 0)
            + u32::from(flags & TcpFlags::FIN != 0);
        let next = tcp.sequence().get().wrapping_add(occupied);
        (Be32::new(0), Be32::new(next), TcpFlags::RST | TcpFlags::ACK)
    };
    if env.packet_length() > SHORTEST_FRAME && !env.truncate(SHORTEST_FRAME) {
        return Verdict::Drop(DropReason::ReplyFailed, link);
    }
    match write(env, segment, answer) {
        Some(()) => Verdict::Reset(reason, link),
        None => Verdict::Drop(DropReason::ReplyFailed, link),
    }
}

/// Writes the reset over the segment. The windows are taken anew: cutting the frame voids them.
#[inline(always)]
fn write<E: Environment>(
    env: &E,
    segment: &Segment,
    (sequence, acknowledgement, flags): (Be32, Be32, u8),
) -> Option<()> {
    let ethernet = Ethernet::at(env, 0)?;
    let ipv4 = Ipv4::at(env, L3)?;
    let tcp = Tcp::at(env, L4)?;
    let key = &segment.key;

    // The frame was for our own address, so turning it round needs no other.
    ethernet.turn_round(ethernet.destination());

    ipv4.set_tos(0);
    ipv4.set_total_length(Be16::new(LENGTH));
    ipv4.set_identification(Be16::new(0));
    ipv4.set_fragment(Ipv4::DONT_FRAGMENT);
    ipv4.set_ttl(Ipv4::DEFAULT_TTL);
    ipv4.set_source(key.destination);
    ipv4.set_destination(key.source);
    let header = Sum::ZERO
        .be16(Be16::new(u16::from_be_bytes([Ipv4::PLAIN, 0])))
        .be16(Be16::new(LENGTH))
        .be16(Ipv4::DONT_FRAGMENT)
        .be16(Be16::new(u16::from_be_bytes([
            Ipv4::DEFAULT_TTL,
            protocol::TCP,
        ])))
        .be32(key.source)
        .be32(key.destination);
    ipv4.set_checksum(header.checksum());

    const WORDS: u8 = 5;
    const { assert!(WORDS as usize * 4 == Tcp::LENGTH) };
    tcp.set_source_port(key.destination_port);
    tcp.set_destination_port(key.source_port);
    tcp.set_sequence(sequence);
    tcp.set_acknowledgement(acknowledgement);
    tcp.set_data_offset(WORDS << 4);
    tcp.set_flags(flags);
    tcp.set_window(Be16::new(0));
    tcp.set_urgent(Be16::new(0));
    let sum = checksum::pseudo_header(key.source, key.destination, protocol::TCP, Tcp::OCTETS)
        .be16(key.source_port)
        .be16(key.destination_port)
        .be32(sequence)
        .be32(acknowledgement)
        .be16(Be16::new(u16::from_be_bytes([WORDS << 4, flags])));
    tcp.set_checksum(sum.checksum());

    if let Some(padding) = env.packet(END, SHORTEST_FRAME - END) {
        clear(padding);
    }
    Some(())
}

/// Clears the frame's padding, so that none of the segment's bytes stay behind the reset.
#[inline(always)]
fn clear(padding: NonNull<u8>) {
    // SAFETY: as many bytes as were checked when the pointer was taken.
    unsafe { padding.write_bytes(0, SHORTEST_FRAME - END) }
}
