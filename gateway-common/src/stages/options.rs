//! TCP options of a SYN: the window scale is noted, the maximum segment size is made no larger than
//! what fits both networks (RFC 9293, section 3.7.1; RFC 7323, section 2).

use crate::{
    Be16, Environment, Family,
    checksum::Sum,
    flow::FlowRef,
    packet::{Tcp, TcpOption, TcpSegmentSize},
    stages::transport::Segment,
};

/// Options that are looked at, at the most: the two come first everywhere.
const MOST_OPTIONS: usize = 8;

const END: u8 = 0;
const NOTHING: u8 = 1;
const SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
/// The largest shift that is allowed.
const MOST_SCALE: u8 = 14;
/// The longest options.
const LONGEST: u16 = 40;

/// What a SYN's options say.
struct Found {
    /// By how many bits the sender shifts its windows.
    scale: u8,
    /// Where the option of the maximum segment size is, in bytes behind the fixed header, plus 1; 0:
    /// there is none.
    segment_size: u16,
}

/// Reads the options, so many bytes from `start` on. In the upper half of the result: the window
/// scale; in the lower: where the option of the maximum segment size is, plus 1.
#[inline(always)]
pub fn read<E: Environment>(env: &E, start: u16, length: u16) -> u32 {
    let start = usize::from(start);
    let (mut scale, mut segment_size) = (0u8, 0u16);
    let mut at = 0u16;
    for _ in 0..MOST_OPTIONS {
        if at >= length || at >= LONGEST {
            break;
        }
        let Some(option) = TcpOption::at(env, start + usize::from(at)) else {
            break;
        };
        let (kind, size) = (option.kind(), option.length());
        if kind == END {
            break;
        }
        if kind == NOTHING {
            at += 1;
            continue;
        }
        if size < 2 || at + u16::from(size) > length {
            break;
        }
        if kind == SEGMENT_SIZE && size == 4 {
            segment_size = at + 1;
        } else if kind == WINDOW_SCALE && size == 3 {
            scale = option.value();
        }
        at += u16::from(size);
    }
    u32::from(scale) << 16 | u32::from(segment_size)
}

/// The options of a SYN.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two halves of a word")]
fn options<A: Family, E: Environment>(env: &mut E, segment: &Segment<A>, tcp: Tcp) -> Found {
    let length = tcp.header_length().saturating_sub(Tcp::OCTETS);
    let word = env.syn_options((segment.l4.get() + Tcp::LENGTH) as u16, length);
    let scale = (word >> 16) as u8;
    Found {
        scale: if scale > MOST_SCALE {
            MOST_SCALE
        } else {
            scale
        },
        segment_size: word as u16,
    }
}

/// Notes a SYN's window scale with its flow, and makes its maximum segment size no larger than
/// `most`; returns what that changes in the sum that the checksum covers.
#[inline(always)]
pub(super) fn syn<A: Family, T: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<A>,
    tcp: Tcp,
    flow: &FlowRef<T>,
    most: u16,
) -> Sum {
    let found = options(env, segment, tcp);
    flow.set_scale(found.scale);
    if found.segment_size == 0 {
        return Sum::ZERO;
    }
    // Masked in sight of the verifier: options are no longer.
    let at = env.opaque(found.segment_size - 1) & 0x3f;
    let option = TcpSegmentSize::at(env, segment.l4.get() + Tcp::LENGTH + usize::from(at));
    let Some(option) = option.filter(|option| option.size() > most) else {
        return Sum::ZERO;
    };
    let delta = Sum::ZERO.replace16(Be16::new(option.size()), Be16::new(most));
    let [high, low] = most.to_be_bytes();
    option.set_high(high);
    option.set_low(low);
    // At an odd place its bytes are in the halves of two words, the other way round.
    if at & 1 != 0 {
        Sum::ZERO.word(delta.fold().swap_bytes())
    } else {
        delta
    }
}
