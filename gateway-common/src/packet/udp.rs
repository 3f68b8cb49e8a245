//! UDP headers (RFC 768).

use core::mem::offset_of;

use network_types::udp::UdpHdr;

use crate::{
    byte_order::Be16,
    packet::{PortPair, header},
};

header! {
    /// A UDP header.
    Udp, UdpHdr::LEN, {
        /// Both ports: the source's first.
        ports / set_ports: PortPair = offset_of!(UdpHdr, src);
        /// Header and payload, in bytes.
        length / set_length: Be16 = offset_of!(UdpHdr, len);
        /// The checksum; 0 for none.
        checksum / set_checksum: Be16 = offset_of!(UdpHdr, check);
    }
}
