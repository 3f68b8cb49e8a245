//! The address family IPv6.

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    checksum::Sum,
    family::{Family, Header},
    hash::mix,
    packet::{Ipv6, LinearData, PacketBuffer, protocol},
};

/// IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6;

impl Family for V6 {
    type Address = IpAddress;
    type Header = Ipv6;
    const ICMP: u8 = protocol::ICMPV6;
    const MAX_ICMP_ERROR_LEN: u16 = 1_280;
    const TTL_DECREMENT_DELTA: u16 = 0;
    const ADDRESS_WORDS: usize = 4;

    #[inline(always)]
    fn address_word(address: IpAddress, index: usize) -> u32 {
        address.words()[index & 3].raw()
    }

    #[inline(always)]
    fn address_from_words(words: [u32; 4]) -> IpAddress {
        IpAddress::new(words.map(Be32::from_raw))
    }

    #[inline(always)]
    fn to_mapped(address: IpAddress) -> IpAddress {
        address
    }

    #[inline(always)]
    fn from_mapped(address: IpAddress) -> Option<IpAddress> {
        match address.to_v4() {
            Some(_) => None,
            None => Some(address),
        }
    }

    #[inline(always)]
    fn is_unicast(address: IpAddress) -> bool {
        let [a, b, c, _] = address.words();
        let multicast = a.get() >> 24 == 0xff;
        // ::/96 holds the unspecified, the loopback and the IPv4-compatible addresses (RFC 4291, section 2.5).
        // IPv4-mapped addresses never appear on the wire.
        let is_low_range =
            a.raw() == 0 && b.raw() == 0 && (c.raw() == 0 || address.to_v4().is_some());
        !multicast && !is_low_range
    }

    #[inline(always)]
    fn is_link_local(address: IpAddress) -> bool {
        address.words()[0].get() >> 22 == 0xfe80 >> 6
    }

    #[inline(always)]
    fn add_to_sum(sum: Sum, address: IpAddress) -> Sum {
        let [a, b, c, d] = address.words();
        sum.add_be32(a).add_be32(b).add_be32(c).add_be32(d)
    }

    #[inline(always)]
    fn replace_in_sum(sum: Sum, old: IpAddress, new: IpAddress) -> Sum {
        let ([a, b, c, d], [e, f, g, h]) = (old.words(), new.words());
        sum.replace32(a, e)
            .replace32(b, f)
            .replace32(c, g)
            .replace32(d, h)
    }

    #[inline(always)]
    fn mix_into_hash(hash: u64, address: IpAddress) -> u64 {
        let pair = |high: Be32, low: Be32| u64::from(high.raw()) << 32 | u64::from(low.raw());
        let [a, b, c, d] = address.words();
        mix(mix(hash, pair(a, b)), pair(c, d))
    }

    #[inline(always)]
    fn to_table_addr(address: IpAddress) -> Option<IpAddress> {
        Some(address)
    }
}

impl Header for Ipv6 {
    type Address = IpAddress;
    const LEN_U16: u16 = Self::LEN_U16;

    #[inline(always)]
    fn within(linear: LinearData, offset: usize) -> Option<Self> {
        Self::within(linear, offset)
    }

    #[inline(always)]
    fn fast_path_len(self) -> Option<u16> {
        let payload = self.payload_length().get();
        let is_valid_length = payload != 0 && payload <= u16::MAX - Self::LEN_U16;
        (self.is_version_6() && is_valid_length).then(|| payload + Self::LEN_U16)
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        self.next_header()
    }

    #[inline(always)]
    fn at<B: PacketBuffer>(buffer: &B, offset: usize) -> Option<Self> {
        Self::at(buffer, offset)
    }

    #[inline(always)]
    fn source(self) -> IpAddress {
        self.source()
    }

    #[inline(always)]
    fn destination(self) -> IpAddress {
        self.destination()
    }

    #[inline(always)]
    fn set_addresses(self, source: IpAddress, destination: IpAddress) {
        self.set_both_addresses(source, destination);
    }

    #[inline(always)]
    fn hop_limit(self) -> u8 {
        self.hop_limit()
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "keeps eight bits")]
    fn traffic_class(self) -> u8 {
        (self.version_and_flow().get() >> 20) as u8
    }

    #[inline(always)]
    fn has_no_options(self) -> bool {
        self.is_version_6()
    }

    #[inline(always)]
    fn fragment_fields(self) -> (u16, u16) {
        (0, 0)
    }

    #[inline(always)]
    fn payload_len(self) -> u16 {
        self.payload_length().get()
    }

    #[inline(always)]
    fn update_addresses(self, source: IpAddress, destination: IpAddress) {
        self.set_addresses(source, destination);
    }

    #[inline(always)]
    fn is_fragmentable(self) -> bool {
        false
    }

    #[inline(always)]
    fn set_id(self, _id: u32) {}

    #[inline(always)]
    fn decrement_ttl(self, _delta: u16) {
        self.set_hop_limit(self.hop_limit() - 1);
    }

    #[inline(always)]
    fn reset_hop_limit(self) {
        self.set_hop_limit(Self::DEFAULT_HOP_LIMIT);
    }

    #[inline(always)]
    fn emit(self, source: IpAddress, destination: IpAddress, protocol: u8, payload: u16) {
        self.set_version_and_flow(Self::VERSION_6);
        self.set_payload_length(Be16::new(payload));
        self.set_next_header(protocol);
        self.set_hop_limit(Self::DEFAULT_HOP_LIMIT);
        self.set_addresses(source, destination);
    }
}
