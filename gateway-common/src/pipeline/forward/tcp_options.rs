//! TCP options of a SYN: the window scale is noted, the maximum segment size is made no larger than
//! what fits both networks (RFC 9293, section 3.7.1; RFC 7323, section 2).

use crate::{
    byte_order::Be16,
    checksum::Sum,
    family::Family,
    flow::FlowRef,
    packet::{Tcp, TcpMssOption, TcpOption},
    pipeline::ingress::l4::L4Packet,
    platform::Platform,
};

/// Options that are looked at, at the most: the two come first everywhere.
const MAX_OPTIONS: usize = 8;

const KIND_END: u8 = 0;
const KIND_NOP: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_WINDOW_SCALE: u8 = 3;
/// The largest shift that is allowed.
const MAX_WINDOW_SCALE: u8 = 14;
/// The longest options.
const MAX_OPTIONS_LEN: u16 = 40;

/// What a SYN's options say.
struct SynOptions {
    /// By how many bits the sender shifts its windows.
    window_scale: u8,
    /// Where the option of the maximum segment size is, in bytes behind the fixed header, plus 1; 0:
    /// there is none.
    mss_position: u16,
}

/// Reads the options, so many bytes from `start` on. In the upper half of the result: the window
/// scale; in the lower: where the option of the maximum segment size is, plus 1.
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

/// The options of a SYN.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two halves of a word")]
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

/// Notes a SYN's window scale with its flow, and makes its maximum segment size no larger than
/// `most`; returns what that changes in the sum that the checksum covers.
#[inline(always)]
pub(crate) fn clamp_mss<A: Family, T: Family, E: Platform>(
    env: &mut E,
    packet: &L4Packet<A>,
    tcp: Tcp,
    flow: &FlowRef<T>,
    max_segment_size: u16,
) -> Sum {
    let syn_options = read_syn_options(env, packet, tcp);
    flow.set_window_scale(syn_options.window_scale);
    if syn_options.mss_position == 0 {
        return Sum::ZERO;
    }
    // Masked in sight of the verifier: options are no longer.
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
    // At an odd place its bytes are in the halves of two words, the other way round.
    if mss_offset & 1 != 0 {
        Sum::ZERO.add_word(delta.fold().swap_bytes())
    } else {
        delta
    }
}
