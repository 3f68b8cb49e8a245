//! Exits: the results of stages and subprograms.

use crate::{
    drop_reason::{Attribution, DropReason},
    flow::FlowHandle,
    verdict::Verdict,
};

/// The result of a subprogram, or of a stage that ends processing: a verdict, or the subprogram that runs next.
///
/// [`ExitKind`] is the unpacked form. The packed form is one word, since the verifier rejects a copy of a value of
/// which a part is unset, and the compiler may copy a larger value in any way:
///
/// ```text
///   63              32 31            16 15             8 7          0
///  ┌──────────────────┬────────────────┬────────────────┬────────────┐
///  │ connection slot  │ MTU            │ drop reason    │ kind       │
///  │ or egress slot   │                │                │            │
///  ├──────────────────┼────────────────┴────────────────┤            │
///  │ place of a flow  │ version of the place            │            │
///  └──────────────────┴─────────────────────────────────┴────────────┘
/// ```
///
/// # Examples
///
/// A subprogram returns the word, and the dispatcher unpacks it:
///
/// ```
/// use gateway_common::{
///     DropReason, Exit, ExitKind, drop_reason::Attribution, subprogram::Next,
/// };
///
/// let word = Exit::reject(DropReason::PortNotOffered, 7).to_bits();
///
/// let exit = Exit::from_bits(word);
/// assert_eq!(exit.next(), Next::Reject);
/// let attribution = Attribution::new(DropReason::PortNotOffered, 7);
/// assert_eq!(exit.kind(), ExitKind::Reject(attribution));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(u64);

/// The result of a stage: a value to go on with, or the exit that ends processing.
pub type StageResult<T> = Result<T, Exit>;

/// The unpacked form of an [`Exit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// Processing is complete, with this verdict.
    Done(Verdict),
    /// Reject the packet: answer it with a TCP reset or an ICMP error.
    Reject(Attribution),
    /// Answer the packet with an ICMP error that reports this MTU. The second number is the connection slot.
    PacketTooBig(u16, u32),
    /// Answer the packet with an ICMP time exceeded error. The number is the connection slot.
    TtlExceeded(u32),
    /// No IPv4 flow matches the packet, but a NAT46 flow may.
    Nat46,
    /// No flow matches the packet. It may open one.
    OpenFlow,
    /// The packet is an ICMP error about another packet.
    IcmpRelated,
    /// Forward the packet by this flow.
    Forward(FlowHandle),
    /// Forward the IPv4 packet by this NAT46 flow.
    ForwardNat46(FlowHandle),
    /// Insert the flow that was prepared for the packet.
    InsertFlow,
    /// Insert the NAT46 flow that was prepared for the IPv4 packet.
    InsertFlowNat46,
    /// Run the slow path: the packet is not eligible for the fast path, or its flow was opened by
    /// another CPU while the packet was processed.
    SlowPath,
    /// Run the slow path: no flow matches the packet, but it may open one.
    NoFlow,
    /// The packet is a neighbour discovery message.
    NeighbourDiscovery,
    /// The frame had a priority tag, which was removed. Process it as an untagged one.
    Untagged,
}

impl Exit {
    /// Passes the packet to the host unchanged.
    pub const PASS: Self = Self::new(ExitKind::Done(Verdict::Pass));
    /// Sends the reply that the packet was replaced by.
    pub const REPLY: Self = Self::new(ExitKind::Done(Verdict::Reply));
    /// Continues with NAT46: see [`ExitKind::Nat46`].
    pub const NAT46: Self = Self::new(ExitKind::Nat46);
    /// Continues with opening a flow: see [`ExitKind::OpenFlow`].
    pub const OPEN_FLOW: Self = Self::new(ExitKind::OpenFlow);
    /// Continues with the forwarding of an ICMP error: see [`ExitKind::IcmpRelated`].
    pub const ICMP_RELATED: Self = Self::new(ExitKind::IcmpRelated);
    /// Continues with the insertion of a flow: see [`ExitKind::InsertFlow`].
    pub const INSERT_FLOW: Self = Self::new(ExitKind::InsertFlow);
    /// Continues with the insertion of a flow: see [`ExitKind::InsertFlowNat46`].
    pub const INSERT_FLOW_NAT46: Self = Self::new(ExitKind::InsertFlowNat46);
    /// Continues on the slow path: see [`ExitKind::SlowPath`].
    pub const SLOW_PATH: Self = Self::new(ExitKind::SlowPath);
    /// Continues on the slow path: see [`ExitKind::NoFlow`].
    pub const NO_FLOW: Self = Self::new(ExitKind::NoFlow);

    /// Continues with neighbour discovery: see [`ExitKind::NeighbourDiscovery`].
    pub const NEIGHBOUR_DISCOVERY: Self = Self::new(ExitKind::NeighbourDiscovery);
    /// Starts again with the frame as it is now: see [`ExitKind::Untagged`].
    pub const UNTAGGED: Self = Self::new(ExitKind::Untagged);

    /// Returns the exit that drops the packet without an answer.
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: DropReason, connection_slot: u32) -> Self {
        Self::attributed(1, Attribution::new(reason, connection_slot))
    }

    /// Returns the exit that rejects the packet.
    #[inline(always)]
    #[must_use]
    pub const fn reject(reason: DropReason, connection_slot: u32) -> Self {
        Self::attributed(6, Attribution::new(reason, connection_slot))
    }

    /// Returns the exit that answers the packet with an ICMP error that reports this MTU.
    #[inline(always)]
    #[must_use]
    pub const fn packet_too_big(max_len: u16, connection_slot: u32) -> Self {
        Self(7 | (max_len as u64) << 16 | (connection_slot as u64) << 32)
    }

    /// Returns the exit that answers the packet with an ICMP time exceeded error.
    #[inline(always)]
    #[must_use]
    pub const fn ttl_exceeded(connection_slot: u32) -> Self {
        Self(8 | (connection_slot as u64) << 32)
    }

    /// Returns the exit that redirects the packet to the attachment in this slot.
    #[inline(always)]
    #[must_use]
    pub const fn redirect(egress_slot: u32) -> Self {
        Self(4 | (egress_slot as u64) << 32)
    }

    /// Returns the exit that forwards the packet by a flow.
    #[inline(always)]
    #[must_use]
    pub const fn forward(flow: FlowHandle) -> Self {
        Self(12 | flow.to_bits())
    }

    /// Returns the exit that forwards the IPv4 packet by a NAT46 flow.
    #[inline(always)]
    #[must_use]
    pub const fn forward_nat46(flow: FlowHandle) -> Self {
        Self(15 | flow.to_bits())
    }

    /// Returns the flow of an exit that forwards by one.
    #[inline(always)]
    #[must_use]
    pub const fn flow(self) -> FlowHandle {
        FlowHandle::from_bits(self.0)
    }

    /// Returns the egress slot if the exit is a redirect.
    #[inline(always)]
    #[must_use]
    pub const fn redirect_slot(self) -> Option<u32> {
        if self.0 & 0xff == 4 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }

    /// Packs an exit.
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: ExitKind) -> Self {
        match kind {
            ExitKind::Done(Verdict::Pass) => Self(0),
            ExitKind::Done(Verdict::Drop(attribution)) => Self::attributed(1, attribution),
            ExitKind::Done(Verdict::Reply) => Self(2),
            ExitKind::Done(Verdict::TcpReset(attribution)) => Self::attributed(3, attribution),
            ExitKind::Done(Verdict::Redirect(slot)) => Self::redirect(slot),
            ExitKind::Done(Verdict::IcmpError(attribution)) => Self::attributed(5, attribution),
            ExitKind::Reject(attribution) => Self::attributed(6, attribution),
            ExitKind::PacketTooBig(max_len, connection_slot) => {
                Self::packet_too_big(max_len, connection_slot)
            }
            ExitKind::TtlExceeded(connection_slot) => Self::ttl_exceeded(connection_slot),
            ExitKind::Nat46 => Self(9),
            ExitKind::OpenFlow => Self(10),
            ExitKind::IcmpRelated => Self(11),
            ExitKind::Forward(flow) => Self::forward(flow),
            ExitKind::ForwardNat46(flow) => Self::forward_nat46(flow),
            ExitKind::InsertFlow => Self(16),
            ExitKind::InsertFlowNat46 => Self(17),
            ExitKind::SlowPath => Self(13),
            ExitKind::NoFlow => Self(14),
            ExitKind::NeighbourDiscovery => Self(18),
            ExitKind::Untagged => Self(19),
        }
    }

    #[inline(always)]
    const fn attributed(tag: u64, attribution: Attribution) -> Self {
        let Attribution {
            reason,
            connection_slot,
        } = attribution;
        Self(tag | (reason as u64) << 8 | (connection_slot as u64) << 32)
    }

    /// Unpacks the exit.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "extracts a field of the word"
    )]
    pub const fn kind(self) -> ExitKind {
        let (max_len, slot) = ((self.0 >> 16) as u16, (self.0 >> 32) as u32);
        let attribution = Attribution::new(DropReason::from_byte((self.0 >> 8) as u8), slot);
        match self.0 & 0xff {
            0 => ExitKind::Done(Verdict::Pass),
            1 => ExitKind::Done(Verdict::Drop(attribution)),
            2 => ExitKind::Done(Verdict::Reply),
            3 => ExitKind::Done(Verdict::TcpReset(attribution)),
            5 => ExitKind::Done(Verdict::IcmpError(attribution)),
            6 => ExitKind::Reject(attribution),
            7 => ExitKind::PacketTooBig(max_len, slot),
            8 => ExitKind::TtlExceeded(slot),
            9 => ExitKind::Nat46,
            10 => ExitKind::OpenFlow,
            11 => ExitKind::IcmpRelated,
            12 => ExitKind::Forward(self.flow()),
            15 => ExitKind::ForwardNat46(self.flow()),
            16 => ExitKind::InsertFlow,
            17 => ExitKind::InsertFlowNat46,
            13 => ExitKind::SlowPath,
            14 => ExitKind::NoFlow,
            18 => ExitKind::NeighbourDiscovery,
            19 => ExitKind::Untagged,
            _ => ExitKind::Done(Verdict::Redirect(slot)),
        }
    }

    /// Returns the dispatcher's next step.
    #[inline(always)]
    #[must_use]
    pub const fn next(self) -> Next {
        match self.0 & 0xff {
            6..=8 => Next::Reject,
            9 => Next::Nat46,
            10 => Next::OpenFlow,
            11 => Next::IcmpRelated,
            12 => Next::Forward,
            15 => Next::ForwardNat46,
            16 => Next::InsertFlow,
            17 => Next::InsertFlowNat46,
            13 => Next::SlowPath,
            14 => Next::NoFlow,
            18 => Next::NeighbourDiscovery,
            19 => Next::Untagged,
            _ => Next::Verdict,
        }
    }

    /// Returns the packed word.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the exit with this packed word.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// An [`ExitKind`] without its values. Unpacking the values at each step would leave some of them unset, which the
/// verifier rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Stop: the exit is [`ExitKind::Done`].
    Verdict,
    /// Reject the packet: [`ExitKind::Reject`], [`ExitKind::PacketTooBig`] or [`ExitKind::TtlExceeded`].
    Reject,
    /// See [`ExitKind::Nat46`].
    Nat46,
    /// See [`ExitKind::OpenFlow`].
    OpenFlow,
    /// See [`ExitKind::IcmpRelated`].
    IcmpRelated,
    /// See [`ExitKind::Forward`].
    Forward,
    /// See [`ExitKind::ForwardNat46`].
    ForwardNat46,
    /// See [`ExitKind::InsertFlow`].
    InsertFlow,
    /// See [`ExitKind::InsertFlowNat46`].
    InsertFlowNat46,
    /// See [`ExitKind::SlowPath`].
    SlowPath,
    /// See [`ExitKind::NoFlow`].
    NoFlow,
    /// See [`ExitKind::NeighbourDiscovery`].
    NeighbourDiscovery,
    /// See [`ExitKind::Untagged`].
    Untagged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Control;

    #[test]
    fn exits_round_trip_through_bits() {
        let mut kinds = vec![
            ExitKind::Done(Verdict::Pass),
            ExitKind::Done(Verdict::Reply),
            ExitKind::Done(Verdict::Redirect(7)),
            ExitKind::PacketTooBig(1_480, 9),
            ExitKind::TtlExceeded(3),
            ExitKind::Nat46,
            ExitKind::OpenFlow,
            ExitKind::IcmpRelated,
            ExitKind::Forward(FlowHandle::new(Control::from_bits(u32::MAX), 7)),
            ExitKind::ForwardNat46(FlowHandle::new(Control::from_bits(1 << 8), u32::MAX)),
            ExitKind::InsertFlow,
            ExitKind::InsertFlowNat46,
            ExitKind::SlowPath,
            ExitKind::NoFlow,
            ExitKind::NeighbourDiscovery,
            ExitKind::Untagged,
        ];
        for reason in DropReason::ALL {
            kinds.push(ExitKind::Done(Verdict::Drop(Attribution::new(
                *reason,
                u32::MAX,
            ))));
            kinds.push(ExitKind::Done(Verdict::TcpReset(Attribution::new(
                *reason, 65_535,
            ))));
            kinds.push(ExitKind::Done(Verdict::IcmpError(Attribution::new(
                *reason, 0,
            ))));
            kinds.push(ExitKind::Reject(Attribution::new(*reason, 12)));
        }
        for kind in kinds {
            let exit = Exit::new(kind);
            assert_eq!(exit.kind(), kind);
            let is_done = matches!(kind, ExitKind::Done(_));
            assert_eq!(exit.next() == Next::Verdict, is_done, "{kind:?}");
            let slot = exit.redirect_slot();
            assert_eq!(
                slot.is_some(),
                matches!(kind, ExitKind::Done(Verdict::Redirect(_)))
            );
        }
    }
}
