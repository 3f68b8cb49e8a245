//! The TCP state of a flow as a NAT tracks it (RFC 5382; RFC 6146, section 3.5.2), derived from the flags seen in
//! each direction.
//!
//! ```text
//!     SYN                   SYN, ACK                     ACK
//!   ───────► syn_sent ──────────────────► syn_received ────────────────► established
//!   consumer              backend                       consumer             │
//!                                                                            │ FIN of one side
//!                                                                            ▼
//!                                                                       half_closed
//!                                                                            │ FIN of the other side
//!                                                                            ▼
//!                                                                         closed
//!
//!   any state ──── RST of either side ────► reset
//! ```
//!
//! A segment that follows a reset in the same direction leads back from `reset`, since it shows that the reset was
//! ignored.

/// TCP flags seen in one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlagsSeen(pub u8);

impl TcpFlagsSeen {
    /// No flag yet.
    pub const NONE: Self = Self(0);
    /// A FIN.
    pub const FIN: Self = Self(1);
    /// A SYN.
    pub const SYN: Self = Self(2);
    /// A RST, and no other segment since.
    pub const RST: Self = Self(4);
    /// The acknowledgement of the other direction's FIN.
    pub const FIN_ACKED: Self = Self(8);
    /// An ACK. For UDP: any datagram.
    pub const ACK: Self = Self(16);
    /// A SYN of the consumer on a confirmed flow, and no other segment since: the consumer opens a new connection with
    /// the same addresses and ports, or the SYN is spoofed. The server tells which.
    pub const SYN_AGAIN: Self = Self(32);

    /// The flags that a TCP header can have.
    const OF_HEADER: u8 = Self::FIN.0 | Self::SYN.0 | Self::RST.0 | Self::ACK.0;
    /// All flags.
    pub(crate) const ALL_BITS: u8 = Self::OF_HEADER | Self::FIN_ACKED.0 | Self::SYN_AGAIN.0;

    /// Returns true if all flags of `other` have been seen.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the flags of both.
    #[inline(always)]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the flags of `self` that `other` has too.
    #[inline(always)]
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the flags seen after a segment with these TCP flags, whose bits are those of the TCP header. A segment
    /// other than a reset shows that an earlier reset was ignored (RFC 6146, state TRANS), and one other than a SYN that
    /// an earlier SYN has opened no new connection.
    #[inline(always)]
    #[must_use]
    pub const fn with_segment(self, flags: u8) -> Self {
        // The flag of a repeated SYN has the SYN's bit, four bits higher.
        const { assert!(Self::SYN_AGAIN.0 == Self::SYN.0 << 4) };
        let kept =
            !(Self::RST.0 | Self::SYN_AGAIN.0) | (flags & Self::RST.0) | (flags & Self::SYN.0) << 4;
        Self((self.0 | (flags & Self::OF_HEADER)) & kept)
    }
}

/// The state of a TCP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The consumer has sent its SYN, and the backend has not answered.
    SynSent,
    /// The backend has answered, and the consumer has not acknowledged.
    SynReceived,
    /// Both directions are open.
    Established,
    /// One side has sent a FIN.
    HalfClosed,
    /// Both sides have sent a FIN: acknowledgements and TIME_WAIT remain.
    Closed,
    /// One side has reset the connection.
    Reset,
}

impl TcpState {
    /// Derives the state from the flags seen towards the service and towards the consumer.
    ///
    /// # Examples
    ///
    /// ```
    /// use gateway_common::{
    ///     flow::{TcpFlagsSeen, TcpState},
    ///     packet::TcpFlags,
    /// };
    ///
    /// let to_service = TcpFlagsSeen::NONE.with_segment(TcpFlags::SYN);
    /// let state = TcpState::from_flags_seen(to_service, TcpFlagsSeen::NONE);
    /// assert_eq!(state, TcpState::SynSent);
    ///
    /// let to_consumer = TcpFlagsSeen::NONE.with_segment(TcpFlags::SYN | TcpFlags::ACK);
    /// let state = TcpState::from_flags_seen(to_service, to_consumer);
    /// assert_eq!(state, TcpState::SynReceived);
    ///
    /// let to_service = to_service.with_segment(TcpFlags::ACK);
    /// let state = TcpState::from_flags_seen(to_service, to_consumer);
    /// assert_eq!(state, TcpState::Established);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn from_flags_seen(to_service: TcpFlagsSeen, to_consumer: TcpFlagsSeen) -> Self {
        if to_service.has(TcpFlagsSeen::RST) || to_consumer.has(TcpFlagsSeen::RST) {
            Self::Reset
        } else if to_service.has(TcpFlagsSeen::FIN) && to_consumer.has(TcpFlagsSeen::FIN) {
            Self::Closed
        } else if to_service.has(TcpFlagsSeen::FIN) || to_consumer.has(TcpFlagsSeen::FIN) {
            Self::HalfClosed
        } else if to_consumer.0 == 0 {
            Self::SynSent
        } else if to_service.has(TcpFlagsSeen::ACK) && to_consumer.has(TcpFlagsSeen::ACK) {
            Self::Established
        } else {
            Self::SynReceived
        }
    }

    /// Returns true if the same addresses and ports may open a new connection.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }

    /// Returns the name shown in flow lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::Established => "established",
            Self::HalfClosed => "half_closed",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const FIN: u8 = 1;
    const RST: u8 = 4;

    /// Applies segments, given as (towards the service, flags), and returns the state after each.
    fn states_after(segments: &[(bool, u8)]) -> Vec<TcpState> {
        let (mut to_service, mut to_consumer) = (TcpFlagsSeen::NONE, TcpFlagsSeen::NONE);
        segments
            .iter()
            .map(|(forward, flags)| {
                let seen = if *forward {
                    &mut to_service
                } else {
                    &mut to_consumer
                };
                *seen = seen.with_segment(*flags);
                TcpState::from_flags_seen(to_service, to_consumer)
            })
            .collect()
    }

    #[test]
    fn connection_from_syn_to_close() {
        use TcpState::*;
        assert_eq!(
            states_after(&[
                (true, SYN),
                (false, SYN | ACK),
                (true, ACK),
                (true, ACK | 8),
                (true, FIN | ACK),
                (false, ACK),
                (false, FIN | ACK),
                (true, ACK),
            ]),
            [
                SynSent,
                SynReceived,
                Established,
                Established,
                HalfClosed,
                HalfClosed,
                Closed,
                Closed
            ]
        );
    }

    #[test]
    fn connection_reset_by_backend() {
        assert_eq!(
            states_after(&[(true, SYN), (false, RST | ACK)]),
            [TcpState::SynSent, TcpState::Reset]
        );
    }

    #[test]
    fn segment_after_reset_reestablishes() {
        assert_eq!(
            states_after(&[
                (true, SYN),
                (false, SYN | ACK),
                (true, ACK),
                (true, RST),
                (true, ACK)
            ])[3..],
            [TcpState::Reset, TcpState::Established]
        );
    }

    #[test]
    fn segment_other_than_a_syn_denies_a_repeated_syn() {
        let again = TcpFlagsSeen::ACK.union(TcpFlagsSeen::SYN_AGAIN);
        assert!(again.with_segment(SYN).has(TcpFlagsSeen::SYN_AGAIN));
        for flags in [0, ACK, RST, FIN | ACK] {
            assert!(!again.with_segment(flags).has(TcpFlagsSeen::SYN_AGAIN));
        }
    }

    #[test]
    fn only_closed_and_reset_are_closed() {
        assert!(TcpState::Closed.is_closed() && TcpState::Reset.is_closed());
        assert!(!TcpState::Established.is_closed() && !TcpState::HalfClosed.is_closed());
        assert!(!TcpState::SynSent.is_closed() && !TcpState::SynReceived.is_closed());
    }
}
