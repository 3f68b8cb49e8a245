//! Integers in network byte order.
//!
//! [`Be16`] and [`Be32`] hold the bytes as they are on the wire. They are types of their own, so that code which
//! mixes them with numbers in host byte order does not compile.

use core::net::Ipv4Addr;

use bytemuck::{Pod, Zeroable};

/// A 16-bit field in network byte order: a port, a length, a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// Converts a number from host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// Returns the number in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// Returns the bytes as loaded, for arithmetic that is independent of the byte order (checksums).
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// Wraps bytes as loaded. Inverse of [`Be16::raw`].
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

/// A 32-bit field in network byte order: an IPv4 address, a sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// Converts a number from host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value.to_be())
    }

    /// Returns the number in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }

    /// Returns the bytes as loaded, for arithmetic that is independent of the byte order (checksums, hashes).
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Wraps bytes as loaded. Inverse of [`Be32::raw`].
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

impl From<Ipv4Addr> for Be32 {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Be32> for Ipv4Addr {
    fn from(address: Be32) -> Self {
        Self::from(address.0.to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_network_byte_order() {
        assert_eq!(bytemuck::bytes_of(&Be16::new(0x1234)), [0x12, 0x34]);
        assert_eq!(
            bytemuck::bytes_of(&Be32::new(0x1234_5678)),
            [0x12, 0x34, 0x56, 0x78]
        );
        let address = Ipv4Addr::new(10, 0, 0, 5);
        assert_eq!(bytemuck::bytes_of(&Be32::from(address)), [10, 0, 0, 5]);
        assert_eq!(Ipv4Addr::from(Be32::from(address)), address);
        assert_eq!(Be32::from(address).get(), 0x0a00_0005);
    }
}
