//! What differs between IPv4 and IPv6. Everything else is written once, generic over [`Family`].

use core::{fmt::Debug, hash::Hash, ptr::NonNull};

use bytemuck::Pod;

use crate::{
    address::IpAddress,
    byte_order::{Be16, Be32},
    checksum::{self, Sum, TTL_DECREMENT},
    flow::{Flow, FlowKey, FlowRef, Table},
    hash::mix,
    maps::{DatagramKey, FragmentRecord},
    packet::{Ipv4, Ipv6, LinearData, Mac, protocol},
    platform::{InsertError, Platform},
};

/// An address family.
pub trait Family: Copy + Debug + Default + Eq + Hash + Ord + 'static {
    /// Its addresses, as headers and flow entries have them.
    type Address: Pod + Copy + Debug + Default + Eq + Hash + Ord;
    /// Its header.
    type Header: Header<Address = Self::Address>;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// The longest ICMP error, its IP header included, in bytes (RFC 1812, section 4.3.2.3; RFC
    /// 4443, section 2.4).
    const MAX_ICMP_ERROR_LEN: u16;
    /// What one hop less adds to the sum of a header.
    const TTL_DECREMENT_DELTA: u16;

    /// The address as configuration is keyed by it.
    fn to_mapped(address: Self::Address) -> IpAddress;
    /// The address, if it is of this family.
    fn from_mapped(address: IpAddress) -> Option<Self::Address>;
    /// Returns whether a host can have the address: it is no unspecified, loopback, group, broadcast or
    /// otherwise reserved one (RFC 1122, section 3.2.1.3; RFC 6890).
    fn is_unicast(address: Self::Address) -> bool;
    /// Returns whether the address is good on its own link only (RFC 3927; RFC 4291, section 2.5.6).
    fn is_link_local(address: Self::Address) -> bool;
    /// Returns whether no packet to `destination` can come from `source` (RFC 1812, section 5.3.7): the
    /// source is not unicast, or is the destination itself.
    #[inline(always)]
    fn is_martian(source: Self::Address, destination: Self::Address) -> bool {
        !Self::is_unicast(source) || source == destination
    }
    /// Adds an address to a sum.
    fn add_to_sum(sum: Sum, address: Self::Address) -> Sum;
    /// Adds what replacing one address by another changes.
    fn replace_in_sum(sum: Sum, old: Self::Address, new: Self::Address) -> Sum;
    /// Mixes an address into a hash.
    fn mix_into_hash(hash: u64, address: Self::Address) -> u64;
    /// The address as this family's flow table has it: IPv6's holds IPv4-mapped ones too.
    fn to_table_addr(address: IpAddress) -> Option<Self::Address>;
    /// The ports of a datagram that came in fragments.
    fn fragment_record<E: Platform>(env: &E, key: &DatagramKey<Self>) -> Option<FragmentRecord>;
    /// Notes them for the fragments that follow.
    fn record_fragment<E: Platform>(env: &mut E, key: &DatagramKey<Self>, record: &FragmentRecord);

    /// A flow entry.
    fn lookup_flow<E: Platform>(
        env: &E,
        table: Table,
        key: &FlowKey<Self>,
    ) -> Option<FlowRef<Self>>;
    /// Inserts a flow entry under a key that must not exist yet in that table.
    ///
    /// # Errors
    /// [`InsertError`], nothing having changed.
    fn insert_flow<E: Platform>(
        env: &mut E,
        table: Table,
        key: &FlowKey<Self>,
        flow: &Flow<Self>,
    ) -> Result<(), InsertError>;
    /// Memory to build a flow entry in, this packet's alone. What is in it is left from before.
    fn flow_scratch<E: Platform>(env: &mut E) -> Option<NonNull<Flow<Self>>>;
    /// Removes a flow entry, if it is there.
    fn remove_flow<E: Platform>(env: &mut E, table: Table, key: &FlowKey<Self>);
}

/// A header of a family: what rewriting needs of it.
pub trait Header: Copy {
    /// The family's addresses.
    type Address;
    /// The header's length, without options and extensions.
    const LEN_U16: u16;

    /// The header at `offset`, or nothing if the packet ends within it.
    fn at<E: Platform>(env: &E, offset: usize) -> Option<Self>;
    /// The header at `offset` of what was checked, or nothing if that ends within it.
    fn within(linear: LinearData, offset: usize) -> Option<Self>;
    /// The IP packet's length in bytes, if the header is one of this version, says a length that can
    /// be, has neither options nor a place within a larger packet, and forbids routers to make
    /// fragments of it.
    fn fast_path_len(self) -> Option<u16>;
    /// The protocol behind the header, or the kind of the extension header there.
    fn protocol(self) -> u8;
    /// The source address.
    fn source(self) -> Self::Address;
    /// The destination address.
    fn destination(self) -> Self::Address;
    /// Replaces both addresses.
    fn set_addresses(self, source: Self::Address, destination: Self::Address);
    /// Hops that the packet may go yet.
    fn hop_limit(self) -> u8;
    /// DSCP and ECN: the IPv4 header's TOS, the IPv6 header's traffic class.
    fn traffic_class(self) -> u8;
    /// The protocol behind a header that has no options, extension headers or fragments; none for
    /// others.
    fn protocol_without_options(self) -> Option<u8>;
    /// The length of what is behind the header, in bytes.
    fn payload_len(self) -> u16;
    /// Replaces both addresses, and updates what checksum the header has.
    fn update_addresses(self, source: Self::Address, destination: Self::Address);
    /// Returns whether a router may fragment the packet.
    fn is_fragmentable(self) -> bool;
    /// Replaces the identification and updates what checksum the header has; nothing where the
    /// identification is in a header of its own.
    fn set_id(self, id: u32);
    /// Takes one hop away and updates what checksum the header has; `delta` is what this and the
    /// new addresses change in its sum.
    fn decrement_ttl(self, delta: u16);
    /// Gives the packet the hop limit that the gateway's own packets have.
    fn reset_hop_limit(self);
    /// Writes a header anew, for a packet of the gateway's own with so many bytes behind it.
    fn emit(self, source: Self::Address, destination: Self::Address, protocol: u8, payload: u16);
}

/// The sum over the pseudo header of TCP, UDP and ICMPv6 (RFC 9293, section 3.1; RFC 8200, section
/// 8.1).
#[inline(always)]
#[must_use]
pub fn pseudo_header<F: Family>(
    source: F::Address,
    destination: F::Address,
    protocol: u8,
    length: u16,
) -> Sum {
    F::add_to_sum(F::add_to_sum(Sum::ZERO, source), destination)
        .add_be16(Be16::new(u16::from(protocol)))
        .add_be16(Be16::new(length))
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6;

impl Family for V4 {
    type Address = Be32;
    type Header = Ipv4;
    const ICMP: u8 = protocol::ICMP;
    const MAX_ICMP_ERROR_LEN: u16 = 576;
    const TTL_DECREMENT_DELTA: u16 = TTL_DECREMENT;

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

    #[inline(always)]
    fn fragment_record<E: Platform>(env: &E, key: &DatagramKey<Self>) -> Option<FragmentRecord> {
        env.fragment_record_v4(key)
    }

    #[inline(always)]
    fn record_fragment<E: Platform>(env: &mut E, key: &DatagramKey<Self>, record: &FragmentRecord) {
        env.record_fragment_v4(key, record);
    }

    #[inline(always)]
    fn lookup_flow<E: Platform>(
        env: &E,
        table: Table,
        key: &FlowKey<Self>,
    ) -> Option<FlowRef<Self>> {
        env.lookup_flow_v4(table, key)
    }

    #[inline(always)]
    fn insert_flow<E: Platform>(
        env: &mut E,
        table: Table,
        key: &FlowKey<Self>,
        flow: &Flow<Self>,
    ) -> Result<(), InsertError> {
        env.insert_flow_v4(table, key, flow)
    }

    #[inline(always)]
    fn flow_scratch<E: Platform>(env: &mut E) -> Option<NonNull<Flow<Self>>> {
        env.flow_scratch_v4()
    }

    #[inline(always)]
    fn remove_flow<E: Platform>(env: &mut E, table: Table, key: &FlowKey<Self>) {
        env.remove_flow_v4(table, key);
    }
}

impl Family for V6 {
    type Address = IpAddress;
    type Header = Ipv6;
    const ICMP: u8 = protocol::ICMPV6;
    const MAX_ICMP_ERROR_LEN: u16 = 1_280;
    const TTL_DECREMENT_DELTA: u16 = 0;

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
        // ::/96 holds the unspecified, the loopback and the IPv4-compatible addresses (RFC 4291, section
        // 2.5); IPv4-mapped ones are never on the wire.
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

    #[inline(always)]
    fn fragment_record<E: Platform>(env: &E, key: &DatagramKey<Self>) -> Option<FragmentRecord> {
        env.fragment_record_v6(key)
    }

    #[inline(always)]
    fn record_fragment<E: Platform>(env: &mut E, key: &DatagramKey<Self>, record: &FragmentRecord) {
        env.record_fragment_v6(key, record);
    }

    #[inline(always)]
    fn lookup_flow<E: Platform>(
        env: &E,
        table: Table,
        key: &FlowKey<Self>,
    ) -> Option<FlowRef<Self>> {
        env.lookup_flow_v6(table, key)
    }

    #[inline(always)]
    fn insert_flow<E: Platform>(
        env: &mut E,
        table: Table,
        key: &FlowKey<Self>,
        flow: &Flow<Self>,
    ) -> Result<(), InsertError> {
        env.insert_flow_v6(table, key, flow)
    }

    #[inline(always)]
    fn flow_scratch<E: Platform>(env: &mut E) -> Option<NonNull<Flow<Self>>> {
        env.flow_scratch_v6()
    }

    #[inline(always)]
    fn remove_flow<E: Platform>(env: &mut E, table: Table, key: &FlowKey<Self>) {
        env.remove_flow_v6(table, key);
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
        // The reserved bit is left out.
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
    fn at<E: Platform>(env: &E, offset: usize) -> Option<Self> {
        Self::at(env, offset)
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
    fn protocol_without_options(self) -> Option<u8> {
        // The first fragment of a datagram has its ports too.
        let is_later_fragment = self.flags_and_offset().get() & 0x1fff != 0;
        (self.version_ihl() == Self::VERSION_IHL_NO_OPTIONS && !is_later_fragment)
            .then(|| self.protocol())
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
    fn at<E: Platform>(env: &E, offset: usize) -> Option<Self> {
        Self::at(env, offset)
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
    #[expect(clippy::cast_possible_truncation, reason = "eight bits are wanted")]
    fn traffic_class(self) -> u8 {
        (self.version_and_flow().get() >> 20) as u8
    }

    #[inline(always)]
    fn protocol_without_options(self) -> Option<u8> {
        self.is_version_6().then(|| self.next_header())
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

/// The layout that `Header::renew` and `TTL_DECREMENT` rely on: the TTL is the first byte of its
/// word.
const _: () = assert!(TTL_DECREMENT == !u16::from_ne_bytes([1, 0]));

/// A hardware address of all nodes of a link (RFC 2464, section 7): ff02::1.
pub const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> IpAddress {
        text.parse::<core::net::Ipv6Addr>().unwrap().into()
    }

    fn v4(text: &str) -> Be32 {
        text.parse::<core::net::Ipv4Addr>().unwrap().into()
    }

    /// Special-purpose addresses (RFC 6890 and its registries): whether they are a host's, and whether they
    /// stay on their link.
    #[test]
    fn special_purpose_addresses_are_classified() {
        for (text, unicast, link_local) in [
            ("0.0.0.0", false, false),
            ("0.255.255.255", false, false),
            ("1.0.0.0", true, false),
            ("10.0.0.5", true, false),
            ("100.64.0.1", true, false),
            ("126.255.255.255", true, false),
            ("127.0.0.1", false, false),
            ("127.255.255.255", false, false),
            ("128.0.0.0", true, false),
            ("169.253.255.255", true, false),
            ("169.254.0.0", true, true),
            ("169.254.255.255", true, true),
            ("169.255.0.0", true, false),
            ("192.0.2.1", true, false),
            ("198.18.0.1", true, false),
            ("198.51.100.1", true, false),
            ("203.0.113.1", true, false),
            ("223.255.255.255", true, false),
            ("224.0.0.0", false, false),
            ("239.255.255.255", false, false),
            ("240.0.0.0", false, false),
            ("255.255.255.255", false, false),
        ] {
            let address = v4(text);
            let actual = (V4::is_unicast(address), V4::is_link_local(address));
            assert_eq!(actual, (unicast, link_local), "{text}");
        }
        for (text, unicast, link_local) in [
            ("::", false, false),
            ("::1", false, false),
            ("::10.0.0.5", false, false),
            ("::ffff:10.0.0.5", false, false),
            ("::ffff:0:10.0.0.5", true, false),
            ("64:ff9b::a00:5", true, false),
            ("64:ff9b:1::1", true, false),
            ("2001:db8::1", true, false),
            ("2002:a00:5::1", true, false),
            ("fd00::5", true, false),
            ("fe7f:ffff::1", true, false),
            ("fe80::", true, true),
            ("febf:ffff::1", true, true),
            // Site-local ones are treated as global (RFC 3879, section 4).
            ("fec0::1", true, false),
            ("feff::1", true, false),
            ("ff00::", false, false),
            ("ff02::1", false, false),
            ("ffff::1", false, false),
        ] {
            let address = v6(text);
            let actual = (V6::is_unicast(address), V6::is_link_local(address));
            assert_eq!(actual, (unicast, link_local), "{text}");
        }
    }

    #[test]
    fn equal_source_and_destination_is_martian() {
        assert!(!V4::is_martian(v4("10.0.0.5"), v4("10.0.0.100")));
        assert!(V4::is_martian(v4("10.0.0.100"), v4("10.0.0.100")));
        assert!(!V6::is_martian(v6("fd00::5"), v6("fd00::100")));
        assert!(V6::is_martian(v6("fd00::100"), v6("fd00::100")));
    }

    #[test]
    fn replacing_an_address_is_removing_one_and_adding_the_other() {
        let (old, new) = (v6("fd00::5"), v6("2001:db8:1:2:3:4:5:6"));
        let before = V6::add_to_sum(Sum::ZERO.add_word(0x1234), old).checksum();
        let after = V6::add_to_sum(Sum::ZERO.add_word(0x1234), new).checksum();
        let delta = V6::replace_in_sum(Sum::ZERO, old, new).fold();
        assert_eq!(checksum::update(before, delta), after);
    }
}
