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
        /// Length of header and payload in bytes.
        total_length / set_total_length: Be16 = offset_of!(Ipv4Hdr, tot_len);
        /// Identification, which fragments of a datagram share.
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
    /// Version 4 and a header of five words.
    pub const VERSION_IHL_NO_OPTIONS: u8 = 0x45;
    /// The don't-fragment flag.
    pub const DONT_FRAGMENT: Be16 = Be16::new(0x4000);
    /// TTL of packets that the gateway itself sends (RFC 1700).
    pub const DEFAULT_TTL: u8 = 64;

    /// Returns the fragment's position in the form of the IPv6 fragment header: the offset in bytes, plus 1 if more
    /// fragments follow. 0 means that the packet is not a fragment.
    #[inline(always)]
    #[must_use]
    pub fn fragment_position(self) -> u16 {
        let word = self.flags_and_offset().get();
        (word & 0x1fff) << 3 | (word >> 13 & 1)
    }
}
