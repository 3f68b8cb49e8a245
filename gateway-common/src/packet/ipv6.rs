//! IPv6 headers (RFC 8200).

use core::mem::offset_of;

use network_types::ip::Ipv6Hdr;

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    packet::header,
};

/// Offset of the payload length, behind version, traffic class and flow label.
const PAYLOAD_LENGTH: usize = size_of::<u32>();

header! {
    /// An IPv6 header without extension headers.
    Ipv6, Ipv6Hdr::LEN, {
        /// Version, traffic class and flow label.
        version_and_flow / set_version_and_flow: Be32 = 0;
        /// Length of the bytes that follow the header.
        payload_length / set_payload_length: Be16 = PAYLOAD_LENGTH;
        /// See [`protocol`](crate::packet::protocol).
        next_header / set_next_header: u8 = offset_of!(Ipv6Hdr, next_hdr);
        /// Hop limit.
        hop_limit / set_hop_limit: u8 = offset_of!(Ipv6Hdr, hop_limit);
        /// The source address.
        source / set_source: IpAddress = offset_of!(Ipv6Hdr, src_addr);
        /// The destination address.
        destination / set_destination: IpAddress = offset_of!(Ipv6Hdr, dst_addr);
        /// First of the eight words of both addresses.
        word_0 / set_word_0: Be32 = offset_of!(Ipv6Hdr, src_addr);
        /// See [`Ipv6::word_0`].
        word_1 / set_word_1: Be32 = offset_of!(Ipv6Hdr, src_addr) + 4;
        /// See [`Ipv6::word_0`].
        word_2 / set_word_2: Be32 = offset_of!(Ipv6Hdr, src_addr) + 8;
        /// See [`Ipv6::word_0`].
        word_3 / set_word_3: Be32 = offset_of!(Ipv6Hdr, src_addr) + 12;
        /// See [`Ipv6::word_0`].
        word_4 / set_word_4: Be32 = offset_of!(Ipv6Hdr, dst_addr);
        /// See [`Ipv6::word_0`].
        word_5 / set_word_5: Be32 = offset_of!(Ipv6Hdr, dst_addr) + 4;
        /// See [`Ipv6::word_0`].
        word_6 / set_word_6: Be32 = offset_of!(Ipv6Hdr, dst_addr) + 8;
        /// See [`Ipv6::word_0`].
        word_7 / set_word_7: Be32 = offset_of!(Ipv6Hdr, dst_addr) + 12;
    }
}

impl Ipv6 {
    /// Replaces both addresses word by word. For whole addresses the compiler calls a function that copies byte by
    /// byte, since it does not know that packet memory and map memory do not overlap.
    #[inline(always)]
    pub fn set_both_addresses(self, source: IpAddress, destination: IpAddress) {
        let ([a, b, c, d], [e, f, g, h]) = (source.words(), destination.words());
        self.set_word_0(a);
        self.set_word_1(b);
        self.set_word_2(c);
        self.set_word_3(d);
        self.set_word_4(e);
        self.set_word_5(f);
        self.set_word_6(g);
        self.set_word_7(h);
    }

    /// Version 6, no traffic class, no flow label.
    pub const VERSION_6: Be32 = Be32::new(6 << 28);
    /// Hop limit of packets that the gateway itself sends.
    pub const DEFAULT_HOP_LIMIT: u8 = 64;

    /// Returns true if the version field is 6.
    #[inline(always)]
    #[must_use]
    pub fn is_version_6(self) -> bool {
        self.version_and_flow().get() >> 28 == 6
    }
}

header! {
    /// The start of an extension header that has a length: hop-by-hop options, routing, destination options.
    ExtensionHeader, 8, {
        /// Protocol or kind of extension header that follows.
        next_header / set_next_header: u8 = 0;
        /// Length in units of eight bytes, without the first eight.
        length / set_length: u8 = 1;
        /// Routing header: number of addresses that remain to be visited (RFC 8200, section 4.4).
        segments_left / set_segments_left: u8 = 3;
        /// Options headers: the first two bytes of the options.
        options_start / set_options_start: Be16 = 2;
        /// Options headers: the next four bytes of the options.
        options_end / set_options_end: Be32 = 4;
    }
}

impl ExtensionHeader {
    /// Returns true if an options header holds only padding: Pad1 and PadN options (RFC 8200, section 4.2).
    ///
    /// A header of more than eight bytes does not qualify: padding of more than seven bytes serves no alignment, and
    /// receivers reject it (RFC 8504, section 5.3). Padding with bytes other than zero does not qualify either.
    #[inline(always)]
    #[must_use]
    pub fn is_padding(self) -> bool {
        let options =
            u64::from(self.options_start().get()) << 32 | u64::from(self.options_end().get());
        self.length() == 0 && is_padding(options)
    }
}

/// Length of the options in an options header of minimum length.
const OPTIONS_LEN: u32 = 6;
/// Type of the PadN option, which is padding with a length.
const PAD_N: u64 = 1;

/// Returns true if six bytes, in reading order the lower ones of the word, are Pad1 and PadN options.
#[inline(always)]
const fn is_padding(options: u64) -> bool {
    // The next byte is the uppermost one. After the data of a PadN option is found to be zero, each of its bytes is
    // read as a Pad1 option.
    let mut unread = options << 16;
    let mut remaining = OPTIONS_LEN;
    while remaining > 0 {
        let option_type = unread >> 56;
        unread <<= 8;
        remaining -= 1;
        if option_type == 0 {
            continue;
        }
        if option_type != PAD_N || remaining == 0 {
            return false;
        }
        let length = (unread >> 56) as u32;
        unread <<= 8;
        remaining -= 1;
        if length > remaining || (length > 0 && unread >> (64 - 8 * length) != 0) {
            return false;
        }
    }
    true
}

header! {
    /// The fragment header (RFC 8200, section 4.5).
    FragmentHeader, 8, {
        /// Protocol that follows.
        next_header / set_next_header: u8 = 0;
        /// Reserved, always 0.
        reserved / set_reserved: u8 = 1;
        /// Offset in bytes (a multiple of eight), plus 1 if more fragments follow.
        position / set_position: Be16 = 2;
        /// Identification of the datagram.
        id / set_id: Be32 = 4;
    }
}

#[cfg(test)]
mod tests {
    use super::is_padding;

    #[test]
    fn padding_is_recognised() {
        for padding in [
            0x0000_0000_0000,
            0x0104_0000_0000,
            0x0102_0000_0100,
            0x0001_0300_0000,
            0x0100_0100_0100,
            0x0000_0000_0100,
        ] {
            assert!(is_padding(padding), "{padding:012x}");
        }
        for other in [
            // PadN with bytes other than zero, PadN longer than the header, half an option.
            0x0104_0000_0001,
            0x0105_0000_0000,
            0x01ff_0000_0000,
            0x0000_0000_0001,
            // Router alert, jumbo payload, home address, tunnel encapsulation limit, RPL, unknown options.
            0x0502_0000_0100,
            0xc204_0001_0000,
            0xc910_2001_0db8,
            0x0401_0401_0100,
            0x2304_0000_0000,
            0x6304_0000_0000,
            0x1e00_0000_0000,
            0x0000_0000_8000,
            0xfe04_0000_0000,
        ] {
            assert!(!is_padding(other), "{other:012x}");
        }
    }
}
