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
        /// Source and destination port.
        ports / set_ports: PortPair = offset_of!(UdpHdr, src);
        /// Length of header and payload in bytes.
        length / set_length: Be16 = offset_of!(UdpHdr, len);
        /// Checksum. 0 means that there is none.
        checksum / set_checksum: Be16 = offset_of!(UdpHdr, check);
    }
}
