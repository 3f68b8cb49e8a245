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
    }
}

impl Ipv6 {
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
