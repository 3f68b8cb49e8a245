//! Calls of flow table functions.
//!
//! In the kernel each function is a BPF global function, which the verifier checks once and not on each path to each
//! call. It gets and returns numbers: an entry is passed as its [`FlowId`], a key as up to five words.

use crate::flow::Control;

/// A function of the flow table, with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowCall {
    /// Look up a key, given as words. Returns a [`FlowId`].
    Lookup,
    /// Look at both buckets of a key, given as words. Returns a [`Survey`](crate::flow::insert::Survey).
    Survey,
    /// Look up the other direction of an entry. Returns a [`FlowId`].
    Peer,
    /// Tell whether an entry is dead, given a grace in ticks. Returns 0 or 1.
    IsDead,
    /// Close the flow of an entry.
    Close,
    /// Remove both entries of a flow.
    Remove,
    /// Insert the entry that was built in the packet's own memory, under the key there. Returns a [`FlowId`], or the
    /// cause of the failure in place of its index.
    Insert,
    /// Set the return path of a flow, given the entry towards the service and the path of a packet.
    SetReturnPath,
    /// Begin a new connection with a flow's addresses and ports, given the entry towards the consumer and the number that
    /// acknowledges the backend's SYN.
    Restart,
    /// Record a FIN of an entry's direction, given the number that acknowledges it.
    RecordFin,
    /// Record that an entry's direction has acknowledged the other one's FIN.
    RecordFinAcked,
}

/// An entry, as the upper 56 bits of a word: the index of its place and the version of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHandle(u64);

impl FlowHandle {
    /// Returns the handle of the entry in a place, given its control word.
    #[inline(always)]
    #[must_use]
    pub const fn new(control: Control, index: u32) -> Self {
        Self((index as u64) << 32 | control.version_bits() as u64)
    }

    /// Wraps the upper 56 bits of a word.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & !0xff)
    }

    /// Returns the word, whose last eight bits are 0.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the index of the place.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns a control word of the entry, without its state.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "keeps the lower half")]
    pub const fn version(self) -> Control {
        Control::from_bits(self.0 as u32)
    }
}

/// An entry, as a number: its control word in the upper half and the index of its place in the lower half. 0 is no
/// entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(u64);

impl FlowId {
    /// No entry.
    pub const NONE: Self = Self(0);

    /// Returns the number of the entry in a place.
    #[inline(always)]
    #[must_use]
    pub const fn new(control: u32, index: u32) -> Self {
        Self((control as u64) << 32 | index as u64)
    }

    /// Wraps a number.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the number.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the control word, or 0.
    #[inline(always)]
    #[must_use]
    pub const fn control(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the index of the place.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "keeps the lower half")]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }
}
