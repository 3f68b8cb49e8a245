//! The state of a TCP connection as a NAT sees it (RFC 5382, RFC 6146 section 3.5.2), told from the
//! flags that were seen in each direction.

/// Flags seen in one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlagsSeen(pub u8);

impl TcpFlagsSeen {
    /// Nothing yet.
    pub const NONE: Self = Self(0);
    /// A FIN.
    pub const FIN: Self = Self(1);
    /// A SYN.
    pub const SYN: Self = Self(2);
    /// A RST, and nothing since.
    pub const RST: Self = Self(4);
    /// An ACK; for UDP, any packet at all.
    pub const ACK: Self = Self(16);

    const ALL: u8 = Self::FIN.0 | Self::SYN.0 | Self::RST.0 | Self::ACK.0;

    /// Whether all flags of `other` have been seen.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[inline(always)]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// After a segment with these TCP flags. The bits are those of the header. A segment other than
    /// a reset shows that an earlier reset was not believed (RFC 6146, state TRANS).
    #[inline(always)]
    #[must_use]
    pub const fn with_segment(self, flags: u8) -> Self {
        let seen = self.0 | (flags & Self::ALL);
        if flags & Self::RST.0 == 0 {
            Self(seen & !Self::RST.0)
        } else {
            Self(seen)
        }
    }
}

/// The state of a TCP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The consumer's SYN went out, nothing came back.
    SynSent,
    /// The backend answered; the consumer has not confirmed.
    SynReceived,
    /// Open both ways.
    Established,
    /// One side has sent its FIN.
    HalfClosed,
    /// Both have: what is left are acknowledgements and TIME_WAIT.
    Closed,
    /// One side reset the connection.
    Reset,
}

impl TcpState {
    /// The state, from what was seen towards the service and towards the consumer.
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

    /// Whether the same addresses and ports may open a new connection.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }

    /// The name shown in flow lists.
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

    /// (towards the service?, flags) one after the other, and the state after each.
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
    fn only_closed_and_reset_are_closed() {
        assert!(TcpState::Closed.is_closed() && TcpState::Reset.is_closed());
        assert!(!TcpState::Established.is_closed() && !TcpState::HalfClosed.is_closed());
        assert!(!TcpState::SynSent.is_closed() && !TcpState::SynReceived.is_closed());
    }
}
