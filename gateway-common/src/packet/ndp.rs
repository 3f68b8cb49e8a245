//! Neighbour discovery messages (RFC 4861).

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    packet::{Mac, header},
};

header! {
    /// A neighbour solicitation or advertisement, without options.
    NeighbourMessage, 24, {
        /// The message's type, and its code in the byte behind it.
        type_and_code / set_type_and_code: Be16 = 0;
        /// The checksum over pseudo header and message.
        checksum / set_checksum: Be16 = 2;
        /// Advertisements: see [`NeighbourMessage::SOLICITED`]; solicitations: reserved.
        flags / set_flags: Be32 = 4;
        /// The address that is asked for.
        target / set_target: IpAddress = 8;
    }
}

impl NeighbourMessage {
    /// Type 135, code 0.
    pub const SOLICITATION: Be16 = Be16::new(135 << 8);
    /// Type 136, code 0.
    pub const ADVERTISEMENT: Be16 = Be16::new(136 << 8);
    /// It answers a solicitation.
    pub const SOLICITED: u32 = 1 << 30;
    /// It replaces what is known already.
    pub const OVERRIDE: u32 = 1 << 29;
    /// The hop limit that shows that no router forwarded it.
    pub const HOP_LIMIT: u8 = 255;
}

header! {
    /// The option with the target's link-layer address, for Ethernet.
    LinkLayerOption, 8, {
        /// Type 2 and length 1 (unit: eight bytes).
        type_and_length / set_type_and_length: Be16 = 0;
        /// The address.
        mac / set_mac: Mac = 2;
    }
}

impl LinkLayerOption {
    /// The target's address.
    pub const TARGET: Be16 = Be16::new(0x0201);
}
