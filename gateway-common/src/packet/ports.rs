//! Both ports of a flow's packets, in one word.

use bytemuck::{Pod, Zeroable};

use crate::byte_order::{Be16, Be32};

/// A source and a destination port, as a TCP or UDP header begins with them: loaded, compared and stored in
/// one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct PortPair(u32);

impl PortPair {
    /// Of these two.
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

    /// As a header has them.
    #[inline(always)]
    #[must_use]
    pub const fn from_wire(word: Be32) -> Self {
        Self(word.raw())
    }

    /// The same, for a header.
    #[inline(always)]
    #[must_use]
    pub const fn to_wire(self) -> Be32 {
        Be32::from_raw(self.0)
    }

    /// The source port.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "half of it is wanted")]
    pub const fn source(self) -> Be16 {
        Be16::from_raw(if cfg!(target_endian = "little") {
            self.0 as u16
        } else {
            (self.0 >> 16) as u16
        })
    }

    /// The destination port.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "half of it is wanted")]
    pub const fn destination(self) -> Be16 {
        Be16::from_raw(if cfg!(target_endian = "little") {
            (self.0 >> 16) as u16
        } else {
            self.0 as u16
        })
    }

    /// The ports of packets that go the other way.
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
