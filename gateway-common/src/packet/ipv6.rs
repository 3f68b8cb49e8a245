//! IPv6 headers (RFC 8200).

use core::mem::offset_of;

use network_types::ip::Ipv6Hdr;

use crate::{Be16, Be32, address::IpAddress, packet::header};

/// The offset of the payload length, behind version, traffic class and flow label.
const PAYLOAD_LENGTH: usize = size_of::<u32>();

header! {
    /// An IPv6 header.
    Ipv6, Ipv6Hdr::LEN, {
        /// Version, traffic class and flow label.
        version_and_flow / set_version_and_flow: Be32 = 0;
        /// What follows the header, in bytes.
        payload_length / set_payload_length: Be16 = PAYLOAD_LENGTH;
        /// See [`protocol`](crate::packet::protocol).
        next_header / set_next_header: u8 = offset_of!(Ipv6Hdr, next_hdr);
        /// Hops that the packet may go yet.
        hop_limit / set_hop_limit: u8 = offset_of!(Ipv6Hdr, hop_limit);
        /// The source address.
        source / set_source: IpAddress = offset_of!(Ipv6Hdr, src_addr);
        /// The destination address.
        destination / set_destination: IpAddress = offset_of!(Ipv6Hdr, dst_addr);
        /// A word of the addresses, and those that follow.
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
    /// Sets both addresses, word by word: for the whole, the compiler calls a function that copies
    /// byte by byte, since it does not know that packets and tables are apart.
    #[inline(always)]
    pub fn set_both(self, source: IpAddress, destination: IpAddress) {
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
    pub const PLAIN: Be32 = Be32::new(6 << 28);
    /// The hop limit of what the gateway itself sends.
    pub const DEFAULT_HOP_LIMIT: u8 = 64;

    /// Whether it says that it is version 6.
    #[inline(always)]
    #[must_use]
    pub fn is_version_6(self) -> bool {
        self.version_and_flow().get() >> 28 == 6
    }
}

header! {
    /// The start of an extension header that has a length: hop-by-hop, routing, destination options.
    Extension, 8, {
        /// What comes behind it.
        next_header / set_next_header: u8 = 0;
        /// Its length in units of eight bytes, the first not counted.
        length / set_length: u8 = 1;
    }
}

header! {
    /// The fragment header (RFC 8200, section 4.5).
    FragmentHeader, 8, {
        /// What comes behind it.
        next_header / set_next_header: u8 = 0;
        /// Always 0.
        reserved / set_reserved: u8 = 1;
        /// The offset in units of eight bytes, times eight; 1 is added while more fragments follow.
        position / set_position: Be16 = 2;
        /// The datagram's identification.
        id / set_id: Be32 = 4;
    }
}
