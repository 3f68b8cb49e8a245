//! ICMP and ICMPv6 headers (RFC 792, RFC 4443).

use core::mem::offset_of;

use network_types::icmp::Icmpv4Hdr;

use crate::{
    byte_order::{Be16, Be32},
    packet::{PortPair, header},
};

header! {
    /// The header of an ICMP message: its first eight bytes.
    Icmp, Icmpv4Hdr::LEN, {
        /// The type, followed by the code.
        type_and_code / set_type_and_code: Be16 = offset_of!(Icmpv4Hdr, type_);
        /// Checksum over the whole message.
        checksum / set_checksum: Be16 = offset_of!(Icmpv4Hdr, check);
        /// The rest of the header, whose meaning depends on the type. In errors about a packet's size it holds the MTU
        /// (in IPv4: the lower half).
        rest / set_rest: Be32 = offset_of!(Icmpv4Hdr, check) + size_of::<u16>();
    }
}

impl Icmp {
    /// Echo request: type 8, code 0.
    pub const ECHO_REQUEST: Be16 = Be16::new(0x0800);
    /// Echo reply: type 0, code 0.
    pub const ECHO_REPLY: Be16 = Be16::new(0x0000);
    /// ICMPv6 echo request: type 128, code 0 (RFC 4443, section 4.1).
    pub const ECHO_REQUEST_V6: Be16 = Be16::new(128 << 8);
    /// ICMPv6 echo reply: type 129, code 0 (RFC 4443, section 4.2).
    pub const ECHO_REPLY_V6: Be16 = Be16::new(129 << 8);

    /// ICMPv6 multicast listener query: type 130, code 0 (RFC 3810, section 5.1).
    pub const MULTICAST_LISTENER_QUERY: Be16 = Be16::new(130 << 8);

    /// Returns true if type and code are those of an ICMP error that is forwarded to the sender of the embedded packet:
    /// destination unreachable, time exceeded, parameter problem (RFC 5508, section 4).
    #[inline(always)]
    #[must_use]
    pub const fn is_error(kind: Be16) -> bool {
        matches!(kind.get() >> 8, 3 | 11 | 12)
    }

    /// Returns true if type and code are those of an ICMPv6 error: destination unreachable, packet too big, time
    /// exceeded, parameter problem (RFC 4443, section 3).
    #[inline(always)]
    #[must_use]
    pub const fn is_error_v6(kind: Be16) -> bool {
        matches!(kind.get() >> 8, 1..=4)
    }
}

/// Types and codes of the ICMP errors that the gateway sends.
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
    /// The first eight bytes of an embedded L4 header, which every ICMP error contains (RFC 792).
    EmbeddedL4Header, 8, {
        /// Source and destination port.
        ports / set_ports: PortPair = 0;
        /// Checksum, for UDP.
        udp_checksum / set_udp_checksum: Be16 = 6;
    }
}

header! {
    /// The first bytes of an embedded TCP header, up to and including the checksum.
    EmbeddedTcpChecksum, 18, {
        /// Checksum.
        checksum / set_checksum: Be16 = 16;
    }
}
