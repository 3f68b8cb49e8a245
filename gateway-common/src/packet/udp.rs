//! UDP headers (RFC 768).

use core::mem::offset_of;

use network_types::udp::UdpHdr;

use crate::{Be16, Be32, packet::header};

header! {
    /// A UDP header.
    Udp, UdpHdr::LEN, {
        /// Both ports: the source's first.
        ports / set_ports: Be32 = offset_of!(UdpHdr, src);
        /// The source port.
        source_port / set_source_port: Be16 = offset_of!(UdpHdr, src);
        /// The destination port.
        destination_port / set_destination_port: Be16 = offset_of!(UdpHdr, dst);
        /// Header and payload, in bytes.
        length / set_length: Be16 = offset_of!(UdpHdr, len);
        /// The checksum; 0 for none.
        checksum / set_checksum: Be16 = offset_of!(UdpHdr, check);
    }
}
