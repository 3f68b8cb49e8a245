//! Translation of ICMP errors into ICMPv6 errors and the reverse (RFC 7915).

use crate::{
    byte_order::{Be16, Be32},
    family::Family,
    packet::{Icmp, protocol},
    pipeline::forward::mtu::{IPV6_HEADER_GROWTH, MIN_MTU_V6},
};

/// Translates the type, code and second word of an ICMP error into those of ICMPv6 (RFC 7915, section 4.2). `mtu` is
/// the MTU of the interface that the error leaves by.
#[inline(always)]
pub(crate) fn icmp4_to_icmp6(kind: Be16, rest: Be32, mtu: u16) -> Option<(Be16, Be32)> {
    let none = Be32::new(0);
    let word = |kind: u16, code: u16| Be16::new(kind << 8 | code);
    let (kind, code) = (kind.get() >> 8, kind.get() & 0xff);
    match (kind, code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => Some((word(1, 0), none)),
        // Protocol unreachable becomes a parameter problem. The pointer is the offset of the next header field.
        (3, 2) => Some((word(4, 1), Be32::new(6))),
        (3, 3) => Some((word(1, 4), none)),
        (3, 4) => {
            let reported_mtu = rest.get() & 0xffff;
            // A router that reports no MTU (RFC 1191, section 3): use the minimum.
            let mtu_v6 = if reported_mtu == 0 {
                u32::from(MIN_MTU_V6)
            } else {
                reported_mtu + u32::from(IPV6_HEADER_GROWTH)
            };
            let mtu_v6 = mtu_v6.min(u32::from(mtu)).max(u32::from(MIN_MTU_V6));
            Some((word(2, 0), Be32::new(mtu_v6)))
        }
        (3, 9 | 10 | 13 | 15) => Some((word(1, 1), none)),
        (11, 0 | 1) => Some((word(3, code), none)),
        _ => None,
    }
}

/// Translates the type, code and second word of an ICMPv6 error into those of ICMP (RFC 7915, section 5.2). `mtu` is the
/// MTU of the interface that the error leaves by, and `growth` the number of bytes by which the embedded packet became
/// longer when it was translated.
#[inline(always)]
pub(crate) fn icmp6_to_icmp4(
    kind: Be16,
    rest: Be32,
    mtu: u16,
    growth: u16,
) -> Option<(Be16, Be32)> {
    let none = Be32::new(0);
    let word = |kind: u16, code: u16| Be16::new(kind << 8 | code);
    let (kind, code) = (kind.get() >> 8, kind.get() & 0xff);
    match (kind, code) {
        (1, 0 | 2 | 3) => Some((word(3, 1), none)),
        (1, 1) => Some((word(3, 10), none)),
        (1, 4) => Some((word(3, 3), none)),
        (2, 0) => {
            let mtu_v4 = rest.get().saturating_sub(u32::from(growth));
            let mtu_v4 = mtu_v4.min(u32::from(mtu)).min(0xffff);
            Some((word(3, 4), Be32::new(mtu_v4)))
        }
        (3, 0 | 1) => Some((word(11, code), none)),
        (4, 1) => Some((word(3, 2), none)),
        _ => None,
    }
}

/// Minimum length of the original datagram in front of an extension structure (RFC 4884, section 3).
const MIN_DATAGRAM_LEN: u16 = 128;

/// Returns the length of an ICMP message of `length` bytes without its extension structure (RFC 4884), given the type,
/// code and second word of the error.
///
/// The embedded packet's length changes when it is translated. There is no room to pad it to whole units, in front of the
/// extension structure, so that structure is cut off.
#[inline(always)]
pub(crate) fn len_without_extensions<A: Family>(kind: Be16, rest: Be32, length: u16) -> u16 {
    // The length of the embedded packet is in the first byte of ICMPv6's second word, in units of eight bytes, and in the
    // second one of ICMP's, in units of four. A header without extension structure has 0 there.
    let (has_field, units, unit) = if A::ICMP == protocol::ICMPV6 {
        (matches!(kind.get() >> 8, 1 | 3), rest.get() >> 24, 8)
    } else {
        (
            matches!(kind.get() >> 8, 3 | 11),
            rest.get() >> 16 & 0xff,
            4,
        )
    };
    #[expect(clippy::cast_possible_truncation, reason = "at most 255 units")]
    let datagram_len = (units * unit) as u16;
    // Other values are not those of RFC 4884, so there is no extension structure.
    if has_field && datagram_len >= MIN_DATAGRAM_LEN && datagram_len + Icmp::LEN_U16 < length {
        datagram_len + Icmp::LEN_U16
    } else {
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};

    #[test]
    fn extension_structures_are_cut_off() {
        let v4 = |kind, rest, length| {
            len_without_extensions::<V4>(Be16::new(kind), Be32::new(rest), length)
        };
        let v6 = |kind, rest, length| {
            len_without_extensions::<V6>(Be16::new(kind), Be32::new(rest), length)
        };
        for kind in [0x0303, 0x0304, 0x0b00] {
            assert_eq!(v4(kind, 32 << 16 | 1_300, 500), 136, "{kind:04x}");
        }
        for kind in [0x0104, 0x0300] {
            assert_eq!(v6(kind, 16 << 24, 500), 136, "{kind:04x}");
        }
        // No length, one below the minimum, one of the whole message, one beyond it.
        for units in [0, 31, 123, 255] {
            assert_eq!(v4(0x0303, units << 16, 500), 500, "{units}");
        }
        for units in [0, 15, 62, 255] {
            assert_eq!(v6(0x0104, units << 24, 500), 500, "{units}");
        }
        // Packet too big has the MTU there.
        assert_eq!(v6(0x0200, 16 << 24, 500), 500);
    }

    /// Pairs of ICMP and ICMPv6 types that translate into each other.
    #[test]
    fn icmp_types_round_trip() {
        for (v4, v6) in [
            (0x0301, 0x0100),
            (0x0302, 0x0401),
            (0x0303, 0x0104),
            (0x030a, 0x0101),
            (0x0b00, 0x0300),
            (0x0b01, 0x0301),
        ] {
            let (four, six) = (Be16::new(v4), Be16::new(v6));
            let translated = icmp4_to_icmp6(four, Be32::new(0), 1_500);
            assert_eq!(translated.map(|(kind, _)| kind), Some(six), "{v4:04x}");
            let translated_back = icmp6_to_icmp4(six, Be32::new(0), 1_500, 20);
            assert_eq!(
                translated_back.map(|(kind, _)| kind),
                Some(four),
                "{v6:04x}"
            );
        }
    }

    #[test]
    fn unsupported_icmp_types_are_rejected() {
        for v4 in [0x030e, 0x0400, 0x0500, 0x0c00, 0x0b02] {
            assert_eq!(
                icmp4_to_icmp6(Be16::new(v4), Be32::new(0), 1_500),
                None,
                "{v4:04x}"
            );
        }
        for v6 in [0x0105, 0x0400, 0x0402, 0x8000] {
            assert_eq!(
                icmp6_to_icmp4(Be16::new(v6), Be32::new(0), 1_500, 20),
                None,
                "{v6:04x}"
            );
        }
    }

    #[test]
    fn mtu_is_adjusted_by_header_growth() {
        let six = |rest, mtu| {
            icmp4_to_icmp6(Be16::new(0x0304), Be32::new(rest), mtu)
                .unwrap()
                .1
                .get()
        };
        assert_eq!(six(1_400, 1_500), 1_420);
        assert_eq!(six(1_500, 1_500), 1_500);
        assert_eq!(six(0, 1_500), 1_280);
        assert_eq!(six(576, 1_500), 1_280);
        let four = |rest, mtu| {
            icmp6_to_icmp4(Be16::new(0x0200), Be32::new(rest), mtu, 20)
                .unwrap()
                .1
                .get()
        };
        assert_eq!(four(1_420, 1_500), 1_400);
        assert_eq!(four(9_000, 1_500), 1_500);
        assert_eq!(four(1_280, 1_500), 1_260);
    }
}
