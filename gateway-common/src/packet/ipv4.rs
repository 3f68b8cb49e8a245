//! IPv4 headers (RFC 791).

use core::mem::offset_of;

use network_types::ip::Ipv4Hdr;

use crate::{
    byte_order::{Be16, Be32},
    packet::header,
};

header! {
    /// An IPv4 header without options.
    Ipv4, Ipv4Hdr::LEN, {
        /// Version and header length, four bits each.
        version_ihl / set_version_ihl: u8 = offset_of!(Ipv4Hdr, vihl);
        /// DSCP and ECN.
        tos / set_tos: u8 = offset_of!(Ipv4Hdr, tos);
        /// Header and payload, in bytes.
        total_length / set_total_length: Be16 = offset_of!(Ipv4Hdr, tot_len);
        /// The identification of fragments.
        identification / set_identification: Be16 = offset_of!(Ipv4Hdr, id);
        /// Flags and fragment offset.
        flags_and_offset / set_flags_and_offset: Be16 = offset_of!(Ipv4Hdr, frags);
        /// Time to live.
        ttl / set_ttl: u8 = offset_of!(Ipv4Hdr, ttl);
        /// See [`protocol`](crate::packet::protocol).
        protocol / set_protocol: u8 = offset_of!(Ipv4Hdr, proto);
        /// The header's checksum.
        checksum / set_checksum: Be16 = offset_of!(Ipv4Hdr, check);
        /// The source address.
        source / set_source: Be32 = offset_of!(Ipv4Hdr, src_addr);
        /// The destination address.
        destination / set_destination: Be32 = offset_of!(Ipv4Hdr, dst_addr);
    }
}

impl Ipv4 {
    /// Version 4, five words of header.
    pub const VERSION_IHL_NO_OPTIONS: u8 = 0x45;
    /// The don't-fragment flag.
    pub const DONT_FRAGMENT: Be16 = Be16::new(0x4000);
    /// The time to live of what the gateway itself sends (RFC 1700).
    pub const DEFAULT_TTL: u8 = 64;

    /// The place within a larger packet as IPv6's fragment header has it: the offset in bytes, and
    /// 1 added while more follow. 0 is no fragment.
    #[inline(always)]
    #[must_use]
    pub fn fragment_position(self) -> u16 {
        let word = self.flags_and_offset().get();
        (word & 0x1fff) << 3 | (word >> 13 & 1)
    }
}
