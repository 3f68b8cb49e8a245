//! TCP resets, which answer TCP segments that are not forwarded (RFC 9293, section 3.10.7.1).

use core::ptr::NonNull;

use crate::{
    byte_order::{Be16, Be32},
    drop_reason::{Attribution, DropReason},
    family::{Family, Header as _, pseudo_header},
    packet::{Ethernet, Tcp, TcpFlags, protocol},
    pipeline::{
        ingress::{ip_packet::L3_OFFSET, l4::L4Packet},
        rate_limit::RejectBudget,
    },
    platform::Platform,
    verdict::Verdict,
};

/// Minimum length of an Ethernet frame, without its check sequence.
const MIN_FRAME_LEN: usize = 60;

/// Returns the offset in the frame at which the reset ends.
#[inline(always)]
fn reset_end<F: Family>() -> usize {
    L3_OFFSET + usize::from(F::Header::LEN_U16) + Tcp::LEN
}

/// Replaces the segment by the reset that answers it, or drops it.
#[inline(always)]
pub(crate) fn send_reset<F: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<F>,
    tcp: Tcp,
    budget: RejectBudget,
    attribution: Attribution,
) -> Verdict {
    let flags = tcp.flags();
    if flags & TcpFlags::RST != 0 || !budget.may_refuse(env) {
        return Verdict::Drop(attribution);
    }
    let reset_fields = if flags & TcpFlags::ACK != 0 {
        (tcp.acknowledgement(), Be32::new(0), TcpFlags::RST)
    } else {
        let payload = packet.payload_len - tcp.header_length();
        let sequence_len = u32::from(payload)
            + u32::from(flags & TcpFlags::SYN != 0)
            + u32::from(flags & TcpFlags::FIN != 0);
        let next = tcp.sequence().get().wrapping_add(sequence_len);
        (Be32::new(0), Be32::new(next), TcpFlags::RST | TcpFlags::ACK)
    };
    // A frame with options, a payload or extension headers exceeds the reset and is trimmed. A frame below the minimum
    // length is left at its length.
    let length = reset_end::<F>().max(MIN_FRAME_LEN);
    if env.frame_len() > length && !env.resize(length) {
        return Verdict::Drop(Attribution::new(
            DropReason::BufferAdjustFailed,
            attribution.connection_slot,
        ));
    }
    match emit_reset(env, packet, reset_fields) {
        Some(()) => Verdict::TcpReset(attribution),
        None => Verdict::Drop(Attribution::new(
            DropReason::BufferAdjustFailed,
            attribution.connection_slot,
        )),
    }
}

/// Writes the reset over the segment. Header views are created here, since trimming the frame invalidates them.
#[inline(always)]
fn emit_reset<F: Family, E: Platform>(
    env: &E,
    packet: &L4Packet<F>,
    (sequence, acknowledgement, flags): (Be32, Be32, u8),
) -> Option<()> {
    let ethernet = Ethernet::at(env, 0)?;
    let header = F::Header::at(env, L3_OFFSET)?;
    let tcp = Tcp::at(env, L3_OFFSET + usize::from(F::Header::LEN_U16))?;
    let key = &packet.key;

    // The destination of the frame is the gateway's own MAC address, so it becomes the source.
    ethernet.swap_macs(ethernet.destination());
    header.emit(key.destination, key.source, protocol::TCP, Tcp::LEN_U16);

    const WORDS: u8 = 5;
    const { assert!(WORDS as usize * 4 == Tcp::LEN) };
    tcp.set_ports(key.ports.swapped());
    tcp.set_sequence(sequence);
    tcp.set_acknowledgement(acknowledgement);
    tcp.set_data_offset(WORDS << 4);
    tcp.set_flags(flags);
    tcp.set_window(Be16::new(0));
    tcp.set_urgent(Be16::new(0));
    let sum = pseudo_header::<F>(key.source, key.destination, protocol::TCP, Tcp::LEN_U16)
        .add_be32(key.ports.to_wire())
        .add_be32(sequence)
        .add_be32(acknowledgement)
        .add_be16(Be16::new(u16::from_be_bytes([WORDS << 4, flags])));
    tcp.set_checksum(sum.checksum());

    if let Some(padding) = MIN_FRAME_LEN.checked_sub(reset_end::<F>())
        && let Some(start) = env.packet_ptr(reset_end::<F>(), padding)
    {
        clear_padding(start, padding);
    }
    Some(())
}

/// Clears the frame's padding, so that no bytes of the segment remain behind the reset.
#[inline(always)]
fn clear_padding(start: NonNull<u8>, length: usize) {
    // SAFETY: `length` bytes were checked when the pointer was taken.
    unsafe { start.write_bytes(0, length) }
}
