//! The source and destination port of a flow's packets, in one word.

use bytemuck::{Pod, Zeroable};

use crate::byte_order::{Be16, Be32};

/// A source and a destination port, as a TCP or UDP header starts with them. One word is loaded, compared and stored
/// in one step.
///
/// # Examples
///
/// ```
/// use gateway_common::{Be16, Be32, packet::PortPair};
///
/// let ports = PortPair::new(Be16::new(40_000), Be16::new(443));
/// assert_eq!(ports.destination().get(), 443);
///
/// // The ports of packets in the other direction.
/// assert_eq!(ports.swapped().source().get(), 443);
///
/// // The first four bytes of a TCP header: the source port is in the upper half.
/// assert_eq!(ports.to_wire(), Be32::new(40_000 << 16 | 443));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct PortPair(u32);

impl PortPair {
    /// Returns the pair of these ports.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: Be16, destination: Be16) -> Self {
        let (source, destination) = (source.raw() as u32, destination.raw() as u32);
        if cfg!(target_endian = "little") {
            Self(source | destination << 16)
        } else {
            Self(source << 16 | destination)
        }
    }

    /// Returns the pair that a header starts with.
    #[inline(always)]
    #[must_use]
    pub const fn from_wire(word: Be32) -> Self {
        Self(word.raw())
    }

    /// Returns the four bytes that a header starts with.
    #[inline(always)]
    #[must_use]
    pub const fn to_wire(self) -> Be32 {
        Be32::from_raw(self.0)
    }

    /// Returns the source port.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "extracts one port")]
    pub const fn source(self) -> Be16 {
        Be16::from_raw(if cfg!(target_endian = "little") {
            self.0 as u16
        } else {
            (self.0 >> 16) as u16
        })
    }

    /// Returns the destination port.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "extracts one port")]
    pub const fn destination(self) -> Be16 {
        Be16::from_raw(if cfg!(target_endian = "little") {
            (self.0 >> 16) as u16
        } else {
            self.0 as u16
        })
    }

    /// Returns the ports of packets in the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn swapped(self) -> Self {
        Self(self.0.rotate_left(16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_keep_wire_order() {
        let (source, destination) = (Be16::new(0x0102), Be16::new(0x0304));
        let ports = PortPair::new(source, destination);
        assert_eq!((ports.source(), ports.destination()), (source, destination));
        assert_eq!(ports.to_wire(), Be32::new(0x0102_0304));
        assert_eq!(PortPair::from_wire(Be32::new(0x0102_0304)), ports);
        assert_eq!(ports.swapped(), PortPair::new(destination, source));
    }
}
