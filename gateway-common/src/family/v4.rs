//! The address family IPv4.

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    checksum::{self, Sum, TTL_DECREMENT},
    family::{Family, Header},
    hash::mix,
    packet::{Ipv4, LinearData, PacketBuffer, protocol},
};

/// IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4;

impl Family for V4 {
    type Address = Be32;
    type Header = Ipv4;
    const ICMP: u8 = protocol::ICMP;
    const MAX_ICMP_ERROR_LEN: u16 = 576;
    const TTL_DECREMENT_DELTA: u16 = TTL_DECREMENT;
    const ADDRESS_WORDS: usize = 1;

    #[inline(always)]
    fn address_word(address: Be32, _index: usize) -> u32 {
        address.raw()
    }

    #[inline(always)]
    fn address_from_words(words: [u32; 4]) -> Be32 {
        Be32::from_raw(words[0])
    }

    #[inline(always)]
    fn to_mapped(address: Be32) -> IpAddress {
        IpAddress::from_v4(address)
    }

    #[inline(always)]
    fn from_mapped(address: IpAddress) -> Option<Be32> {
        address.to_v4()
    }

    #[inline(always)]
    fn is_unicast(address: Be32) -> bool {
        let first_octet = address.get() >> 24;
        // 0/8 "this network", 127/8 loopback, 224/4 multicast, 240/4 reserved with broadcast.
        first_octet != 0 && first_octet != 127 && first_octet < 224
    }

    #[inline(always)]
    fn is_link_local(address: Be32) -> bool {
        address.get() >> 16 == 0xa9fe
    }

    #[inline(always)]
    fn add_to_sum(sum: Sum, address: Be32) -> Sum {
        sum.add_be32(address)
    }

    #[inline(always)]
    fn replace_in_sum(sum: Sum, old: Be32, new: Be32) -> Sum {
        sum.replace32(old, new)
    }

    #[inline(always)]
    fn mix_into_hash(hash: u64, address: Be32) -> u64 {
        mix(hash, u64::from(address.raw()))
    }

    #[inline(always)]
    fn to_table_addr(address: IpAddress) -> Option<Be32> {
        address.to_v4()
    }
}

impl Header for Ipv4 {
    type Address = Be32;
    const LEN_U16: u16 = Self::LEN_U16;

    #[inline(always)]
    fn within(linear: LinearData, offset: usize) -> Option<Self> {
        Self::within(linear, offset)
    }

    #[inline(always)]
    fn fast_path_len(self) -> Option<u16> {
        // The reserved bit is ignored.
        const FLAGS: Be16 = Be16::new(0x7fff);
        let is_unfragmented =
            self.flags_and_offset().raw() & FLAGS.raw() == Self::DONT_FRAGMENT.raw();
        let length = self.total_length().get();
        (self.version_ihl() == Self::VERSION_IHL_NO_OPTIONS
            && is_unfragmented
            && length >= Self::LEN_U16)
            .then_some(length)
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        self.protocol()
    }

    #[inline(always)]
    fn at<B: PacketBuffer>(buffer: &B, offset: usize) -> Option<Self> {
        Self::at(buffer, offset)
    }

    #[inline(always)]
    fn source(self) -> Be32 {
        self.source()
    }

    #[inline(always)]
    fn destination(self) -> Be32 {
        self.destination()
    }

    #[inline(always)]
    fn set_addresses(self, source: Be32, destination: Be32) {
        self.set_source(source);
        self.set_destination(destination);
    }

    #[inline(always)]
    fn hop_limit(self) -> u8 {
        self.ttl()
    }

    #[inline(always)]
    fn traffic_class(self) -> u8 {
        self.tos()
    }

    #[inline(always)]
    fn has_no_options(self) -> bool {
        self.version_ihl() == Self::VERSION_IHL_NO_OPTIONS
    }

    #[inline(always)]
    fn fragment_fields(self) -> (u16, u16) {
        (self.identification().get(), self.fragment_position())
    }

    #[inline(always)]
    fn payload_len(self) -> u16 {
        self.total_length().get().saturating_sub(Self::LEN_U16)
    }

    #[inline(always)]
    fn update_addresses(self, source: Be32, destination: Be32) {
        let delta = Sum::ZERO
            .replace32(self.source(), source)
            .replace32(self.destination(), destination);
        self.set_checksum(checksum::update(self.checksum(), delta.fold()));
        self.set_addresses(source, destination);
    }

    #[inline(always)]
    fn is_fragmentable(self) -> bool {
        self.flags_and_offset().raw() & Self::DONT_FRAGMENT.raw() == 0
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the field has 16 bits")]
    fn set_id(self, id: u32) {
        let id = Be16::new(id as u16);
        let delta = Sum::ZERO.replace16(self.identification(), id);
        self.set_identification(id);
        self.set_checksum(checksum::update(self.checksum(), delta.fold()));
    }

    #[inline(always)]
    fn decrement_ttl(self, delta: u16) {
        self.set_ttl(self.ttl() - 1);
        self.set_checksum(checksum::update(self.checksum(), delta));
    }

    #[inline(always)]
    fn reset_hop_limit(self) {
        let word = |ttl| Be16::from_raw(u16::from_ne_bytes([ttl, 0]));
        let delta = Sum::ZERO.replace16(word(self.ttl()), word(Self::DEFAULT_TTL));
        self.set_ttl(Self::DEFAULT_TTL);
        self.set_checksum(checksum::update(self.checksum(), delta.fold()));
    }

    #[inline(always)]
    fn emit(self, source: Be32, destination: Be32, protocol: u8, payload: u16) {
        let length = Be16::new(Self::LEN_U16 + payload);
        self.set_version_ihl(Self::VERSION_IHL_NO_OPTIONS);
        self.set_tos(0);
        self.set_total_length(length);
        self.set_identification(Be16::new(0));
        self.set_flags_and_offset(Self::DONT_FRAGMENT);
        self.set_ttl(Self::DEFAULT_TTL);
        self.set_protocol(protocol);
        self.set_addresses(source, destination);
        let sum = Sum::ZERO
            .add_be16(Be16::new(u16::from_be_bytes([
                Self::VERSION_IHL_NO_OPTIONS,
                0,
            ])))
            .add_be16(length)
            .add_be16(Self::DONT_FRAGMENT)
            .add_be16(Be16::new(u16::from_be_bytes([Self::DEFAULT_TTL, protocol])))
            .add_be32(source)
            .add_be32(destination);
        self.set_checksum(sum.checksum());
    }
}

/// The layout that `Header::reset_hop_limit` and `TTL_DECREMENT` rely on: the TTL is the first byte of its word.
const _: () = assert!(TTL_DECREMENT == !u16::from_ne_bytes([1, 0]));
