//! Parsed IP packets: offsets, lengths, and the position among fragments.

use crate::{
    byte_order::Be32,
    drop_reason::DropReason,
    family::{Family, Header as _},
    maps::NO_CONNECTION,
    packet::{Ethernet, PacketBuffer},
    subprogram::{Exit, StageResult},
};
use core::marker::PhantomData;

/// Offset of the IP header.
pub(crate) const L3_OFFSET: usize = Ethernet::LEN;

/// An offset into the frame that differs between packets.
///
/// The verifier loses the range of a number that the compiler keeps in memory, so the offset is masked again at each
/// use. The mask exceeds the offset of every header.
#[derive(Clone, Copy)]
pub(crate) struct L4Offset(u32);

impl L4Offset {
    const MASK: u32 = 0x3fff;

    /// Returns the offset of this many bytes.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the mask")]
    pub(crate) const fn new(offset: usize) -> Self {
        Self(offset as u32 & Self::MASK)
    }

    /// Returns the offset in bytes.
    #[inline(always)]
    pub(crate) const fn get(self) -> usize {
        (self.0 & Self::MASK) as usize
    }

    /// Returns the offset that lies this many bytes before.
    #[inline(always)]
    pub(crate) const fn minus(self, bytes: usize) -> Self {
        Self::new(self.get().wrapping_sub(bytes))
    }

    /// Returns the offset that lies this many bytes behind.
    #[inline(always)]
    pub(crate) const fn plus(self, bytes: usize) -> Self {
        Self::new(self.get() + bytes)
    }
}

/// An IP packet whose headers were parsed and bounds-checked.
#[derive(Clone, Copy)]
pub(crate) struct IpPacket<F: Family> {
    pub(crate) family: PhantomData<F>,
    /// Protocol behind the IP header, the extension headers and the fragment header.
    pub(crate) protocol: u8,
    /// Offset of that protocol's header.
    pub(crate) l4_offset: L4Offset,
    /// Length of the IP packet in bytes.
    pub(crate) length: u16,
    /// Length of the bytes at `l4_offset` and behind it.
    pub(crate) payload_len: u16,
    pub(crate) fragment: Fragment,
    /// The destination MAC address is multicast, which only neighbour discovery allows.
    pub(crate) is_dst_multicast: bool,
}

impl<F: Family> IpPacket<F> {
    /// Returns the IP header. Views are created at each use and not kept: the compiler splits values that it keeps in
    /// memory, and the verifier rejects a pointer that was split.
    #[inline(always)]
    pub(crate) fn header<E: PacketBuffer>(&self, env: &E) -> StageResult<F::Header> {
        network_header::<F, E>(env)
    }
}

/// The position of a fragment in its datagram.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fragment {
    /// Identification of the datagram.
    pub(crate) id: Be32,
    /// Offset in bytes, plus 1 if more fragments follow. 0 for a packet that is not a fragment.
    pub(crate) position: u16,
}

impl Fragment {
    /// A packet that is not a fragment.
    pub(crate) const NONE: Self = Self {
        id: Be32::new(0),
        position: 0,
    };

    /// Returns true if the packet is a fragment.
    #[inline(always)]
    pub(crate) const fn is_fragment(self) -> bool {
        self.position != 0
    }

    /// Returns true if the packet is a fragment without the L4 header.
    #[inline(always)]
    pub(crate) const fn is_later_fragment(self) -> bool {
        self.position > 1
    }

    /// Returns true if the packet is the fragment with the L4 header.
    #[inline(always)]
    pub(crate) const fn is_first_fragment(self) -> bool {
        self.position == 1
    }
}

/// Returns the IP header of the packet.
#[inline(always)]
pub(crate) fn network_header<F: Family, E: PacketBuffer>(env: &E) -> StageResult<F::Header> {
    F::Header::at(env, L3_OFFSET).ok_or(Exit::drop(DropReason::Truncated, NO_CONNECTION))
}
