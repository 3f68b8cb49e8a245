//! ICMP headers (RFC 792).

use core::mem::offset_of;

use network_types::icmp::Icmpv4Hdr;

use crate::{
    byte_order::{Be16, Be32},
    packet::{PortPair, header},
};

header! {
    /// The first eight bytes of an ICMP message.
    Icmp, Icmpv4Hdr::LEN, {
        /// The message's type, and its code in the byte behind it.
        type_and_code / set_type_and_code: Be16 = offset_of!(Icmpv4Hdr, type_);
        /// The checksum over the whole message.
        checksum / set_checksum: Be16 = offset_of!(Icmpv4Hdr, check);
        /// What the rest of the header means depends on the type: of errors about a packet's size,
        /// the largest that fits (in IPv4: its lower half).
        rest / set_rest: Be32 = offset_of!(Icmpv4Hdr, check) + size_of::<u16>();
    }
}

impl Icmp {
    /// Type 8, code 0.
    pub const ECHO_REQUEST: Be16 = Be16::new(0x0800);
    /// Type 0, code 0.
    pub const ECHO_REPLY: Be16 = Be16::new(0x0000);
    /// Type 128, code 0 of ICMPv6 (RFC 4443).
    pub const ECHO_REQUEST_V6: Be16 = Be16::new(128 << 8);
    /// Type 129, code 0 of ICMPv6.
    pub const ECHO_REPLY_V6: Be16 = Be16::new(129 << 8);

    /// Whether type and code are those of an IPv4 error that is forwarded to the sender of the packet in it: destination
    /// unreachable, time exceeded, parameter problem (RFC 5508, section 4).
    #[inline(always)]
    #[must_use]
    pub const fn is_error(kind: Be16) -> bool {
        matches!(kind.get() >> 8, 3 | 11 | 12)
    }

    /// The same for ICMPv6: destination unreachable, packet too big, time exceeded, parameter
    /// problem (RFC 4443, section 3).
    #[inline(always)]
    #[must_use]
    pub const fn is_error_v6(kind: Be16) -> bool {
        matches!(kind.get() >> 8, 1..=4)
    }
}

/// Types and codes of errors.
#[derive(Clone, Copy, Debug)]
pub struct IcmpErrorType;

impl IcmpErrorType {
    /// Host unreachable.
    pub const HOST_UNREACHABLE: Be16 = Be16::new(0x0301);
    /// Port unreachable.
    pub const PORT_UNREACHABLE: Be16 = Be16::new(0x0303);
    /// Fragmentation needed.
    pub const FRAGMENTATION_NEEDED: Be16 = Be16::new(0x0304);
    /// Communication administratively prohibited (RFC 1812, section 5.2.7.1).
    pub const ADMIN_PROHIBITED: Be16 = Be16::new(0x030d);
    /// Time to live exceeded in transit.
    pub const TIME_EXCEEDED: Be16 = Be16::new(0x0b00);
    /// ICMPv6: address unreachable.
    pub const ADDRESS_UNREACHABLE_V6: Be16 = Be16::new(0x0103);
    /// ICMPv6: port unreachable.
    pub const PORT_UNREACHABLE_V6: Be16 = Be16::new(0x0104);
    /// ICMPv6: packet too big.
    pub const PACKET_TOO_BIG_V6: Be16 = Be16::new(0x0200);
    /// ICMPv6: communication administratively prohibited.
    pub const ADMIN_PROHIBITED_V6: Be16 = Be16::new(0x0101);
    /// ICMPv6: hop limit exceeded in transit.
    pub const TIME_EXCEEDED_V6: Be16 = Be16::new(0x0300);
}

header! {
    /// The first eight bytes of a transport header: what an ICMP error has of it at the least (RFC
    /// 792).
    EmbeddedL4Header, 8, {
        /// Both ports: the source's first.
        ports / set_ports: PortPair = 0;
        /// Of UDP: the checksum.
        udp_checksum / set_udp_checksum: Be16 = 6;
    }
}

header! {
    /// As much of a TCP header as has its checksum.
    EmbeddedTcpChecksum, 18, {
        /// TCP's checksum.
        checksum / set_checksum: Be16 = 16;
    }
}
