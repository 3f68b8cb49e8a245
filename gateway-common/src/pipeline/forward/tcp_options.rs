//! TCP options of a SYN: the window scale is recorded, and the maximum segment size is lowered to what fits both
//! networks (RFC 9293, section 3.7.1; RFC 7323, section 2).

use crate::{
    byte_order::Be16,
    checksum::Sum,
    family::Family,
    flow::{Direction, FlowRef, PlaceState},
    packet::{Tcp, TcpMssOption, TcpOption},
    pipeline::ingress::l4::L4Packet,
    platform::Platform,
};

/// Maximum number of options that are read. Both options are among the first in all common implementations.
const MAX_OPTIONS: usize = 8;

const KIND_END: u8 = 0;
const KIND_NOP: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_WINDOW_SCALE: u8 = 3;
/// Maximum window scale (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;
/// Maximum length of the options in bytes.
const MAX_OPTIONS_LEN: u16 = 40;

/// The options of a SYN.
struct SynOptions {
    /// Window scale, in bits.
    window_scale: u8,
    /// Offset of the maximum segment size option behind the fixed header, plus 1. 0 if there is none.
    mss_position: u16,
}

/// Reads `length` bytes of options at `start`. The upper half of the result is the window scale. The lower half is the
/// offset of the maximum segment size option, plus 1.
#[inline(always)]
pub fn parse_options<E: Platform>(env: &E, start: u16, length: u16) -> u32 {
    let start = usize::from(start);
    let (mut scale, mut segment_size) = (0u8, 0u16);
    let mut offset = 0u16;
    for _ in 0..MAX_OPTIONS {
        if offset >= length || offset >= MAX_OPTIONS_LEN {
            break;
        }
        let Some(option) = TcpOption::at(env, start + usize::from(offset)) else {
            break;
        };
        let (kind, size) = (option.kind(), option.length());
        if kind == KIND_END {
            break;
        }
        if kind == KIND_NOP {
            offset += 1;
            continue;
        }
        if size < 2 || offset + u16::from(size) > length {
            break;
        }
        if kind == KIND_MSS && size == 4 {
            segment_size = offset + 1;
        } else if kind == KIND_WINDOW_SCALE && size == 3 {
            scale = option.value();
        }
        offset += u16::from(size);
    }
    u32::from(scale) << 16 | u32::from(segment_size)
}

/// Returns the options of a SYN.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "splits a word into halves")]
fn read_syn_options<A: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    tcp: Tcp,
) -> SynOptions {
    let length = tcp.header_length().saturating_sub(Tcp::LEN_U16);
    let word = env.parse_syn_options((packet.l4_offset.get() + Tcp::LEN) as u16, length);
    let scale = (word >> 16) as u8;
    SynOptions {
        window_scale: if scale > MAX_WINDOW_SCALE {
            MAX_WINDOW_SCALE
        } else {
            scale
        },
        mss_position: word as u16,
    }
}

/// Records the window scale of a SYN, and lowers its maximum segment size to `max_segment_size`. Returns the checksum
/// delta of that change.
#[inline(always)]
pub(crate) fn clamp_mss<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    tcp: Tcp,
    flow: &FlowRef<T>,
    max_segment_size: u16,
) -> Sum {
    let syn_options = read_syn_options(env, packet, tcp);
    // A consumer's SYN on an established connection is a stray one, or opens a new connection with what the host had
    // before.
    if flow.control.is(PlaceState::HalfOpen) || flow.entry().direction() == Direction::ToConsumer {
        flow.set_window_scale(syn_options.window_scale);
    }
    if syn_options.mss_position == 0 {
        return Sum::ZERO;
    }
    // Masked where the verifier sees it. The options are not longer than the mask.
    let mss_offset = env.forget_bounds(syn_options.mss_position - 1) & 0x3f;
    let option = TcpMssOption::at(
        env,
        packet.l4_offset.get() + Tcp::LEN + usize::from(mss_offset),
    );
    let Some(option) = option.filter(|option| option.size() > max_segment_size) else {
        return Sum::ZERO;
    };
    let delta = Sum::ZERO.replace16(Be16::new(option.size()), Be16::new(max_segment_size));
    let [high, low] = max_segment_size.to_be_bytes();
    option.set_high(high);
    option.set_low(low);
    // At an odd offset the two bytes of the field lie in two words, swapped.
    if mss_offset & 1 != 0 {
        Sum::ZERO.add_word(delta.fold().swap_bytes())
    } else {
        delta
    }
}
