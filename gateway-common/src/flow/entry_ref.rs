//! References to flow entries in a map, which other CPUs read and write as well.

use core::ptr::NonNull;

use crate::{
    byte_order::{Be16, Be32},
    family::Family,
    flow::{CoarseTime, Flow, StateWord, TcpFlagsSeen},
};

/// A reference to a flow entry in a map. Other CPUs may write the entry's mutable fields at the same time.
#[derive(Clone, Copy, Debug)]
pub struct FlowRef<F: Family>(NonNull<Flow<F>>);

impl<F: Family> FlowRef<F> {
    /// Wraps a pointer that a map returned.
    ///
    /// # Safety
    /// `entry` points to a live, aligned `Flow` that stays allocated while the reference is used
    /// (in eBPF: until the program returns), and nobody writes its immutable fields.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(entry: NonNull<Flow<F>>) -> Self {
        Self(entry)
    }

    /// Returns the entry, for its immutable fields.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self) -> &Flow<F> {
        // SAFETY: `new` demands that the entry lives and that its immutable fields are not written.
        unsafe { self.0.as_ref() }
    }

    /// Returns the TCP flags seen so far in this direction.
    #[inline(always)]
    #[must_use]
    pub fn tcp_flags_seen(&self) -> TcpFlagsSeen {
        // SAFETY: in bounds of a live entry; volatile, since other CPUs may write it.
        TcpFlagsSeen(unsafe { (&raw const (*self.0.as_ptr()).tcp_flags_seen).read_volatile() })
    }

    /// Replaces the TCP flags seen.
    #[inline(always)]
    pub fn set_tcp_flags_seen(&self, seen: TcpFlagsSeen) {
        // SAFETY: as for `tcp_flags_seen`; a lost race loses one flag, which the next packet sets again.
        unsafe { (&raw mut (*self.0.as_ptr()).tcp_flags_seen).write_volatile(seen.0) }
    }

    /// Returns the coarse time of the last packet.
    #[inline(always)]
    #[must_use]
    pub fn last_seen(&self) -> CoarseTime {
        // SAFETY: as for `tcp_flags_seen`.
        CoarseTime(unsafe { (&raw const (*self.0.as_ptr()).last_seen).read_volatile() })
    }

    /// Records that a packet is forwarded now. Writes only if the coarse time has changed.
    #[inline(always)]
    pub fn touch(&self, now: CoarseTime) {
        if self.last_seen() != now {
            // SAFETY: as for `tcp_flags_seen`; all CPUs in a race write the same time.
            unsafe { (&raw mut (*self.0.as_ptr()).last_seen).write_volatile(now.0) }
        }
    }

    /// Records the acknowledgement number and the window of a segment, unless a newer number is recorded already.
    /// `is_first_ack` is true if none was recorded before.
    #[inline(always)]
    pub fn record_ack(&self, acknowledgement: Be32, window: Be16, is_first_ack: bool) {
        let entry = self.0.as_ptr();
        // SAFETY: in bounds of a live entry; volatile, since other CPUs may write it. A lost race leaves an older
        // number, which the next segment updates.
        unsafe {
            let old = (&raw const (*entry).last_ack).read_volatile();
            let advance = acknowledgement.get().wrapping_sub(old.get());
            if is_first_ack || (advance != 0 && advance < 1 << 31) {
                (&raw mut (*entry).last_ack).write_volatile(acknowledgement);
            } else if advance != 0 {
                return;
            }
            if (&raw const (*entry).window).read_volatile() != window {
                (&raw mut (*entry).window).write_volatile(window);
            }
        }
    }

    /// Records the window scale of this direction.
    #[inline(always)]
    pub fn set_window_scale(&self, scale: u8) {
        // SAFETY: as for `tcp_flags_seen`.
        unsafe { (&raw mut (*self.0.as_ptr()).window_scale).write_volatile(scale) }
    }

    /// Returns true if a segment of the other direction with this sequence number is in the window that the sender
    /// of this direction has opened (RFC 9293, section 3.10.7.4; RFC 5961, section 3).
    #[inline(always)]
    #[must_use]
    pub fn is_in_window(&self, sequence: Be32) -> bool {
        let entry = self.0.as_ptr();
        // SAFETY: as for `tcp_flags_seen`.
        let (last_ack, window, scale) = unsafe {
            (
                (&raw const (*entry).last_ack).read_volatile(),
                (&raw const (*entry).window).read_volatile(),
                (&raw const (*entry).window_scale).read_volatile(),
            )
        };
        let size = u32::from(window.get()) << (scale & 15);
        sequence.get().wrapping_sub(last_ack.get()) <= size
    }

    /// Returns the sequence number of the backend's SYN, from the entry towards the consumer of a half-open flow.
    #[inline(always)]
    #[must_use]
    pub fn backend_isn(&self) -> Be32 {
        // SAFETY: as for `tcp_flags_seen`.
        unsafe { (&raw const (*self.0.as_ptr()).state_word).read_volatile() }.as_backend_isn()
    }

    /// Records the sequence number of the backend's SYN in the entry towards the consumer.
    #[inline(always)]
    pub fn set_backend_isn(&self, sequence: Be32) {
        // SAFETY: as for `tcp_flags_seen`.
        unsafe {
            (&raw mut (*self.0.as_ptr()).state_word)
                .write_volatile(StateWord::backend_isn(sequence))
        }
    }
}
