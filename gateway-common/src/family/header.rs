//! The header of an address family.

use crate::packet::{LinearData, PacketBuffer};

/// A header of a family: what rewriting needs of it.
pub trait Header: Copy {
    /// The family's addresses.
    type Address;
    /// The header's length, without options and extensions.
    const LEN_U16: u16;

    /// The header at `offset`, or nothing if the packet ends within it.
    fn at<B: PacketBuffer>(buffer: &B, offset: usize) -> Option<Self>;
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
