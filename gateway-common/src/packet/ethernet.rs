//! Ethernet II frames (IEEE 802.3).

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use network_types::eth::EthHdr;

use crate::{byte_order::Be16, packet::header};

/// A MAC address. It is held as three words, so that it is compared and copied in three steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Mac([u16; 3]);

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.bytes();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// Returns the address with these six bytes.
    #[inline(always)]
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([bytes[0], bytes[1]]),
            u16::from_ne_bytes([bytes[2], bytes[3]]),
            u16::from_ne_bytes([bytes[4], bytes[5]]),
        ])
    }

    /// Returns the three words, as loaded.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u16; 3] {
        self.0
    }

    /// Returns the six bytes.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        let [a, b, c] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
        ];
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// Returns true for the MAC address of an IPv6 multicast group (RFC 2464, section 7).
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6_multicast(self) -> bool {
        self.0[0] == 0x3333
    }

    /// Returns true for a multicast address, which includes the broadcast address.
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 != 0
    }
}

/// A MAC address in one word, as maps hold it, so that it is compared and copied in one step. The address takes the
/// lower six bytes, with the first byte lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct PackedMac(u64);

impl PackedMac {
    const BITS: u32 = 48;

    /// Packs the three words of a MAC address, as loaded.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u16; 3]) -> Self {
        let [a, b, c] = [words[0].to_le(), words[1].to_le(), words[2].to_le()];
        Self(a as u64 | (b as u64) << 16 | (c as u64) << 32)
    }

    /// Wraps the lower six bytes of a word.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns true if the address is a multicast or broadcast address.
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns 24 bits that tell MAC addresses apart. Addresses of one vendor, whose first three bytes are the same,
    /// always differ in them; of two others, one in 16 million pairs does not.
    #[inline(always)]
    #[must_use]
    pub const fn digest(self) -> u32 {
        const VENDOR_BITS: u32 = 24;
        const MASK: u64 = (1 << VENDOR_BITS) - 1;
        // The golden ratio spreads the vendor's bits.
        let spread = (self.0 & MASK).wrapping_mul(0x9e37_79b1) >> 8;
        ((self.0 >> VENDOR_BITS ^ spread) & MASK) as u32
    }

    /// Unpacks the MAC address.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "extracts a field of the word"
    )]
    pub const fn mac(self) -> Mac {
        Mac([
            (self.0 as u16).to_le(),
            ((self.0 >> 16) as u16).to_le(),
            ((self.0 >> 32) as u16).to_le(),
        ])
    }
}

impl From<Mac> for PackedMac {
    #[inline(always)]
    fn from(mac: Mac) -> Self {
        Self::from_words(mac.words())
    }
}

impl From<PackedMac> for Mac {
    #[inline(always)]
    fn from(word: PackedMac) -> Self {
        word.mac()
    }
}

impl core::fmt::Display for PackedMac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.mac().fmt(f)
    }
}

/// EtherTypes that the data path distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherType;

impl EtherType {
    /// IPv4.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// IPv6.
    pub const IPV6: Be16 = Be16::new(0x86dd);
    /// ARP.
    pub const ARP: Be16 = Be16::new(0x0806);
    /// An IEEE 802.1Q tag.
    pub const VLAN: Be16 = Be16::new(0x8100);
    /// An IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: Be16 = Be16::new(0x88a8);
}

header! {
    /// An Ethernet header without VLAN tags.
    Ethernet, EthHdr::LEN, {
        /// Destination MAC address.
        destination / set_destination: Mac = offset_of!(EthHdr, dst_addr);
        /// Source MAC address.
        source / set_source: Mac = offset_of!(EthHdr, src_addr);
        /// The first eight bytes: the destination, and two bytes of the source.
        first_word / set_first_word: u64 = 0;
        /// The other four bytes of the source.
        source_rest / set_source_rest: u32 = size_of::<u64>();
        /// See [`EtherType`].
        ether_type / set_ether_type: Be16 = offset_of!(EthHdr, ether_type);
    }
}

impl Ethernet {
    /// Returns true if the destination is this MAC address.
    #[inline(always)]
    #[must_use]
    pub fn is_addressed_to(self, mac: PackedMac) -> bool {
        // The two bytes of the source are shifted out.
        const UNUSED_BITS: u32 = u64::BITS - PackedMac::BITS;
        u64::from_le(self.first_word()) << UNUSED_BITS == mac.0 << UNUSED_BITS
    }

    /// Returns the source MAC address.
    #[inline(always)]
    #[must_use]
    pub fn packed_source(self) -> PackedMac {
        let first = u64::from_le(self.first_word()) >> PackedMac::BITS;
        PackedMac(first | u64::from(u32::from_le(self.source_rest())) << 16)
    }

    /// Replaces both MAC addresses.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes four bytes of the address"
    )]
    pub fn set_macs(self, destination: PackedMac, source: PackedMac) {
        self.set_first_word((destination.0 | source.0 << PackedMac::BITS).to_le());
        self.set_source_rest(((source.0 >> 16) as u32).to_le());
    }

    /// Addresses the frame back to its sender, with `gateway_mac` as its source.
    #[inline(always)]
    pub fn swap_macs(self, gateway_mac: Mac) {
        self.set_destination(self.source());
        self.set_source(gateway_mac);
    }
}

header! {
    /// An IEEE 802.1Q tag, behind its EtherType.
    VlanTag, 4, {
        /// Priority (three bits), drop eligibility (one bit) and VLAN identifier (twelve bits).
        control / set_control: Be16 = 0;
        /// EtherType of the frame without the tag.
        ether_type / set_ether_type: Be16 = 2;
    }
}

impl VlanTag {
    /// Mask of the VLAN identifier.
    const VLAN: u16 = 0x0fff;

    /// Returns true for a priority tag: the VLAN identifier is 0, so the frame belongs to no VLAN (IEEE 802.1Q, section
    /// 9.6). A tag in front of another one is none, since the inner one names a VLAN.
    #[inline(always)]
    #[must_use]
    pub fn is_only_priority(self) -> bool {
        self.control().get() & Self::VLAN == 0
            && !matches!(self.ether_type(), EtherType::VLAN | EtherType::SERVICE_VLAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_mac_round_trips() {
        let mac = Mac::new([2, 3, 4, 5, 6, 0xf7]);
        assert_eq!(PackedMac::from(mac), PackedMac(0xf706_0504_0302));
        assert_eq!(PackedMac::from(mac).mac(), mac);
        assert_eq!(PackedMac::from(mac).to_string(), "02:03:04:05:06:f7");
    }

    #[test]
    fn digests_of_one_vendor_differ() {
        let digest = |bytes| PackedMac::from(Mac::new(bytes)).digest();
        let first = digest([2, 3, 4, 5, 6, 7]);
        for other in [
            [2, 3, 4, 5, 6, 8],
            [2, 3, 4, 5, 7, 7],
            [2, 3, 4, 4, 6, 7],
            [0, 0, 0x5e, 0, 1, 7],
            [2, 3, 5, 5, 6, 7],
        ] {
            assert_ne!(digest(other), first, "{other:?}");
        }
    }
}
