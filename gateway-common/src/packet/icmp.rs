//! ICMP headers (RFC 792).

use core::mem::offset_of;

use network_types::icmp::Icmpv4Hdr;

use crate::{Be16, packet::header};

header! {
    /// The first eight bytes of an ICMP message.
    Icmp, Icmpv4Hdr::LEN, {
        /// The message's type, and its code in the byte behind it.
        type_and_code / set_type_and_code: Be16 = offset_of!(Icmpv4Hdr, type_);
        /// The checksum over the whole message.
        checksum / set_checksum: Be16 = offset_of!(Icmpv4Hdr, check);
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
}
