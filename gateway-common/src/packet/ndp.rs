//! Neighbour discovery messages (RFC 4861).

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    packet::{Mac, header},
};

header! {
    /// A neighbour solicitation or advertisement, without options.
    NeighbourMessage, 24, {
        /// The type, followed by the code.
        type_and_code / set_type_and_code: Be16 = 0;
        /// Checksum over pseudo header and message.
        checksum / set_checksum: Be16 = 2;
        /// Flags of an advertisement: see [`NeighbourMessage::SOLICITED`]. Reserved in a solicitation.
        flags / set_flags: Be32 = 4;
        /// Address whose MAC address is requested or advertised.
        target / set_target: IpAddress = 8;
    }
}

impl NeighbourMessage {
    /// Neighbour solicitation: type 135, code 0.
    pub const SOLICITATION: Be16 = Be16::new(135 << 8);
    /// Neighbour advertisement: type 136, code 0.
    pub const ADVERTISEMENT: Be16 = Be16::new(136 << 8);

    /// Returns true if the type is that of a solicitation or an advertisement, whatever the code.
    #[inline(always)]
    #[must_use]
    pub const fn is_type(type_and_code: Be16) -> bool {
        matches!(type_and_code.get() >> 8, 135 | 136)
    }

    /// Flag: the advertisement answers a solicitation.
    pub const SOLICITED: u32 = 1 << 30;
    /// Flag: the advertisement overrides an existing neighbour entry.
    pub const OVERRIDE: u32 = 1 << 29;
    /// The required hop limit, which shows that no router has forwarded the message.
    pub const HOP_LIMIT: u8 = 255;
}

header! {
    /// The start of an option.
    NeighbourOption, 2, {
        /// Type of the option.
        option_type / set_option_type: u8 = 0;
        /// Length in units of eight bytes, with these two.
        length / set_length: u8 = 1;
    }
}

impl NeighbourOption {
    /// Type: the link-layer address of a solicitation's sender.
    pub const SOURCE_LINK_LAYER: u8 = 1;
    /// Type: the link-layer address of an advertisement's target.
    pub const TARGET_LINK_LAYER: u8 = 2;
}

header! {
    /// The option with the target's link-layer address, for Ethernet.
    LinkLayerOption, 8, {
        /// Type 2 (target link-layer address) and length 1, in units of eight bytes.
        type_and_length / set_type_and_length: Be16 = 0;
        /// MAC address.
        mac / set_mac: Mac = 2;
    }
}

impl LinkLayerOption {
    /// Type and length of the option with the target's link-layer address.
    pub const TARGET: Be16 = Be16::new(0x0201);
}
