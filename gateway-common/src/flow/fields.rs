//! Fields of a flow entry whose meaning depends on direction and table.
//!
//! ```text
//!                     to the service          to the consumer
//!                                         half-open        established
//!   EntryNextHop      backend             MAC address      MAC address
//!   StateWord         time of creation    backend's ISN    backend's generation
//! ```
//!
//! They share memory because an IPv4 entry with its key must not exceed two cache lines.

use crate::{
    byte_order::Be32,
    flow::CoarseTime,
    packet::{Mac, PackedMac},
};

use bytemuck::{Pod, Zeroable};

/// Next hop of an entry's packets: towards the service a backend, towards the consumer a MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct EntryNextHop([u16; 3]);

impl EntryNextHop {
    /// Returns the next hop of packets to this backend: its slot, and its generation when the flow was opened.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "slots have 16 bits, halves of a word too"
    )]
    pub const fn backend(slot: u32, generation: u32) -> Self {
        Self([slot as u16, generation as u16, (generation >> 16) as u16])
    }

    /// Returns the next hop of packets to the consumer: the source of the packet that opened the flow.
    #[inline(always)]
    #[must_use]
    pub const fn consumer(mac: Mac) -> Self {
        Self(mac.words())
    }

    /// Returns the slot and the generation of an [`EntryNextHop::backend`].
    #[inline(always)]
    #[must_use]
    pub const fn as_backend(self) -> (u32, u32) {
        let [slot, low, high] = self.0;
        (slot as u32, low as u32 | (high as u32) << 16)
    }

    /// Returns the MAC address of an [`EntryNextHop::consumer`].
    #[inline(always)]
    #[must_use]
    pub const fn as_consumer(self) -> PackedMac {
        PackedMac::from_words(self.0)
    }
}

/// A word of state: towards the service the time at which the flow was opened; towards the consumer the initial
/// sequence number of the backend while the flow is half-open, and the generation of the backend once it is
/// established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct StateWord(u32);

impl StateWord {
    /// The word towards the consumer before the backend has replied.
    pub const NONE: Self = Self(0);

    /// Returns the word towards the service.
    #[inline(always)]
    #[must_use]
    pub const fn created_at(time: CoarseTime) -> Self {
        Self(time.0)
    }

    /// Returns the word towards the consumer of a half-open flow.
    #[inline(always)]
    #[must_use]
    pub const fn backend_isn(sequence: Be32) -> Self {
        Self(sequence.raw())
    }

    /// Returns the word towards the consumer of an established flow.
    #[inline(always)]
    #[must_use]
    pub const fn backend_generation(generation: u32) -> Self {
        Self(generation)
    }

    /// Returns the time of a [`StateWord::created_at`].
    #[inline(always)]
    #[must_use]
    pub const fn as_created_at(self) -> CoarseTime {
        CoarseTime(self.0)
    }

    /// Returns the sequence number of a [`StateWord::backend_isn`].
    #[inline(always)]
    #[must_use]
    pub const fn as_backend_isn(self) -> Be32 {
        Be32::from_raw(self.0)
    }

    /// Returns the generation of a [`StateWord::backend_generation`].
    #[inline(always)]
    #[must_use]
    pub const fn as_backend_generation(self) -> u32 {
        self.0
    }
}
