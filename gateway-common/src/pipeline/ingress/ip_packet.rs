//! An IP packet whose headers were parsed: offsets and lengths, and its place among fragments.

use crate::{
    byte_order::Be32,
    drop_reason::DropReason,
    family::{Family, Header as _},
    maps::NO_CONNECTION,
    packet::{Ethernet, PacketBuffer},
    subprogram::{Exit, StageResult},
};
use core::marker::PhantomData;

/// Where the network header starts.
pub(crate) const L3_OFFSET: usize = Ethernet::LEN;

/// A place in the frame that is not the same in all. The kernel's verifier loses what it knew of a
/// number that the compiler keeps in memory, so it is bounded once more where it is used: by more
/// than any header is behind.
#[derive(Clone, Copy)]
pub(crate) struct L4Offset(u32);

impl L4Offset {
    const MASK: u32 = 0x3fff;

    /// So many bytes from the start.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the mask")]
    pub(crate) const fn new(offset: usize) -> Self {
        Self(offset as u32 & Self::MASK)
    }

    /// The offset in bytes.
    #[inline(always)]
    pub(crate) const fn get(self) -> usize {
        (self.0 & Self::MASK) as usize
    }

    /// Returns the place so many bytes before.
    #[inline(always)]
    pub(crate) const fn minus(self, bytes: usize) -> Self {
        Self::new(self.get().wrapping_sub(bytes))
    }

    /// So many bytes further.
    #[inline(always)]
    pub(crate) const fn plus(self, bytes: usize) -> Self {
        Self::new(self.get() + bytes)
    }
}

/// An IP packet that can concern us.
#[derive(Clone, Copy)]
pub(crate) struct IpPacket<F: Family> {
    pub(crate) family: PhantomData<F>,
    /// What is behind the header, and behind extension headers and a fragment header.
    pub(crate) protocol: u8,
    /// Where that starts.
    pub(crate) l4_offset: L4Offset,
    /// The IP packet's length in bytes.
    pub(crate) length: u16,
    /// How much of that is behind the headers.
    pub(crate) payload_len: u16,
    pub(crate) fragment: Fragment,
    /// The frame was sent to a group of stations: only neighbour discovery may be.
    pub(crate) is_dst_multicast: bool,
}

impl<F: Family> IpPacket<F> {
    /// Its header. Windows are taken where they are used, not kept: the compiler takes values in
    /// memory apart, and the verifier lets no pointer be.
    #[inline(always)]
    pub(crate) fn header<E: PacketBuffer>(&self, env: &E) -> StageResult<F::Header> {
        network_header::<F, E>(env)
    }
}

/// A packet's place within a larger one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fragment {
    /// The larger packet's identification.
    pub(crate) id: Be32,
    /// The offset in bytes, with 1 added while more fragments follow; 0 for a whole packet.
    pub(crate) position: u16,
}

impl Fragment {
    /// A whole packet.
    pub(crate) const NONE: Self = Self {
        id: Be32::new(0),
        position: 0,
    };

    /// Whether the packet is a part of a larger one.
    #[inline(always)]
    pub(crate) const fn is_fragment(self) -> bool {
        self.position != 0
    }

    /// Whether it is a part that does not have the transport header.
    #[inline(always)]
    pub(crate) const fn is_later_fragment(self) -> bool {
        self.position > 1
    }

    /// Whether it is the part that has the transport header, of more.
    #[inline(always)]
    pub(crate) const fn is_first_fragment(self) -> bool {
        self.position == 1
    }
}

/// The packet's header.
#[inline(always)]
pub(crate) fn network_header<F: Family, E: PacketBuffer>(env: &E) -> StageResult<F::Header> {
    F::Header::at(env, L3_OFFSET).ok_or(Exit::drop(DropReason::Truncated, NO_CONNECTION))
}
