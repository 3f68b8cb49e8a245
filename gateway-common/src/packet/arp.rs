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
        /// Hardware type: 1 for Ethernet.
        hardware_type / set_hardware_type: Be16 = offset_of!(ArpHdr, htype);
        /// EtherType of the protocol whose addresses are resolved.
        protocol_type / set_protocol_type: Be16 = offset_of!(ArpHdr, ptype);
        /// Length of both address types in bytes: 6 and 4.
        lengths / set_lengths: Be16 = offset_of!(ArpHdr, hlen);
        /// [`Arp::REQUEST`] or [`Arp::REPLY`].
        operation / set_operation: Be16 = offset_of!(ArpHdr, oper);
        /// MAC address of the sender.
        sender_mac / set_sender_mac: Mac = offset_of!(ArpHdr, sha);
        /// IP address of the sender. 0.0.0.0 in a probe (RFC 5227).
        sender_address / set_sender_address: Be32 = offset_of!(ArpHdr, spa);
        /// MAC address of the target. Undefined in a request.
        target_mac / set_target_mac: Mac = offset_of!(ArpHdr, tha);
        /// IP address of the target.
        target_address / set_target_address: Be32 = offset_of!(ArpHdr, tpa);
    }
}

impl Arp {
    /// Operation: a request for the target's MAC address.
    pub const REQUEST: Be16 = Be16::new(1);
    /// Operation: a reply.
    pub const REPLY: Be16 = Be16::new(2);

    /// Returns true if the packet is about IPv4 addresses over Ethernet.
    #[inline(always)]
    #[must_use]
    pub fn is_ethernet_ipv4(self) -> bool {
        self.hardware_type() == Be16::new(1)
            && self.protocol_type() == EtherType::IPV4
            && self.lengths() == Be16::new(0x0604)
    }

    /// Turns a request into its reply, with `gateway_mac` as the MAC address of the requested IP address.
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
