//! ARP for IPv4 over Ethernet (RFC 826).

use core::mem::offset_of;

use network_types::arp::ArpHdr;

use crate::{
    byte_order::{Be16, Be32},
    packet::{EtherType, Mac, header},
};

header! {
    /// An ARP packet.
    Arp, ArpHdr::LEN, {
        /// 1 for Ethernet.
        hardware_type / set_hardware_type: Be16 = offset_of!(ArpHdr, htype);
        /// The EtherType of the protocol whose addresses are asked for.
        protocol_type / set_protocol_type: Be16 = offset_of!(ArpHdr, ptype);
        /// Both address lengths: 6 and 4.
        lengths / set_lengths: Be16 = offset_of!(ArpHdr, hlen);
        /// [`Arp::REQUEST`] or [`Arp::REPLY`].
        operation / set_operation: Be16 = offset_of!(ArpHdr, oper);
        /// Who sends.
        sender_mac / set_sender_mac: Mac = offset_of!(ArpHdr, sha);
        /// Its address; 0.0.0.0 in a probe (RFC 5227).
        sender_address / set_sender_address: Be32 = offset_of!(ArpHdr, spa);
        /// Who is meant; unknown in a request.
        target_mac / set_target_mac: Mac = offset_of!(ArpHdr, tha);
        /// The address asked for.
        target_address / set_target_address: Be32 = offset_of!(ArpHdr, tpa);
    }
}

impl Arp {
    /// Who has this address?
    pub const REQUEST: Be16 = Be16::new(1);
    /// I have.
    pub const REPLY: Be16 = Be16::new(2);

    /// Whether it speaks of IPv4 addresses over Ethernet.
    #[inline(always)]
    #[must_use]
    pub fn is_ethernet_ipv4(self) -> bool {
        self.hardware_type() == Be16::new(1)
            && self.protocol_type() == EtherType::IPV4
            && self.lengths() == Be16::new(0x0604)
    }

    /// Makes a request the answer to it, in the name of `own`.
    #[inline(always)]
    pub fn turn_into_reply(self, gateway_mac: Mac) {
        let requested_address = self.target_address();
        self.set_operation(Self::REPLY);
        self.set_target_mac(self.sender_mac());
        self.set_target_address(self.sender_address());
        self.set_sender_mac(gateway_mac);
        self.set_sender_address(requested_address);
    }
}
