//! The IP header of an address family.

use crate::packet::{LinearData, PacketBuffer};

/// An IP header, with the operations that parsing and rewriting require.
pub trait Header: Copy {
    /// Address type of the family.
    type Address;
    /// Length of the header in bytes, without options and extension headers.
    const LEN_U16: u16;

    /// Returns the header at `offset`, or nothing if the linear data ends before.
    fn at<B: PacketBuffer>(buffer: &B, offset: usize) -> Option<Self>;
    /// Returns the header at `offset` of bytes that were bounds-checked, or nothing if they end before.
    fn within(linear: LinearData, offset: usize) -> Option<Self>;
    /// Returns the length of the IP packet in bytes if the fast path can process it: the version and the length are
    /// valid, there are no options, the packet is not a fragment, and routers must not fragment it.
    fn fast_path_len(self) -> Option<u16>;
    /// Returns the protocol of the payload, or of the extension header that follows.
    fn protocol(self) -> u8;
    /// Returns the source address.
    fn source(self) -> Self::Address;
    /// Returns the destination address.
    fn destination(self) -> Self::Address;
    /// Replaces both addresses. The checksum stays as it is.
    fn set_addresses(self, source: Self::Address, destination: Self::Address);
    /// Returns the TTL or hop limit.
    fn hop_limit(self) -> u8;
    /// Returns DSCP and ECN: the TOS of IPv4, the traffic class of IPv6.
    fn traffic_class(self) -> u8;
    /// Returns true if the version is valid and the header has no options. The extension headers of IPv6 are not part of
    /// the header.
    fn has_no_options(self) -> bool;
    /// Returns the identification and the fragment's position, as [`Ipv4::fragment_position`] does. Both are 0 for IPv6,
    /// which has them in the fragment header.
    ///
    /// [`Ipv4::fragment_position`]: crate::packet::Ipv4::fragment_position
    fn fragment_fields(self) -> (u16, u16);
    /// Returns the length of the bytes that follow the header.
    fn payload_len(self) -> u16;
    /// Replaces both addresses and updates the header's checksum, if it has one.
    fn update_addresses(self, source: Self::Address, destination: Self::Address);
    /// Returns true if routers may fragment the packet.
    fn is_fragmentable(self) -> bool;
    /// Replaces the identification and updates the header's checksum. Does nothing for IPv6, whose identification is
    /// in the fragment header.
    fn set_id(self, id: u32);
    /// Decrements the TTL or hop limit and updates the header's checksum, if it has one. `delta` is the checksum delta
    /// of the decrement and of the new addresses.
    fn decrement_ttl(self, delta: u16);
    /// Sets the TTL or hop limit of packets that the gateway itself sends.
    fn reset_hop_limit(self);
    /// Writes a complete header for a packet that the gateway itself sends, with `payload` bytes behind the header.
    fn emit(self, source: Self::Address, destination: Self::Address, protocol: u8, payload: u16);
}
