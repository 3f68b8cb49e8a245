//! Counters, which the data path writes and the agent reads.

use bytemuck::{Pod, Zeroable};

/// Counters of one connection. Bytes are those of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionCounters {
    /// Packets from the consumer to the service.
    pub packets_to_service: u64,
    /// Bytes from the consumer to the service.
    pub bytes_to_service: u64,
    /// Packets from the service to the consumer.
    pub packets_to_consumer: u64,
    /// Bytes from the service to the consumer.
    pub bytes_to_consumer: u64,
    /// Number of flows opened.
    pub flows_opened: u64,
    /// Packets dropped because the connection is not approved. A flood is made of these, so they are counted where it
    /// costs least. Other reasons are counted in `CONN_DROPS`.
    pub not_approved: u64,
}

/// Key of the drops that are counted for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionDropKey {
    /// Connection slot.
    pub connection_slot: u32,
    /// Number of the [`DropReason`](crate::DropReason).
    pub reason: u32,
}

/// Key of the drops that are counted for one attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct AttachmentDropKey {
    /// Index of the interface where the packet arrived, or of the interface that did not take it
    /// ([`TransmitFailed`](crate::DropReason::TransmitFailed)).
    pub ifindex: u32,
    /// Number of the [`DropReason`](crate::DropReason).
    pub reason: u32,
}

/// Statistics of the data path, beside drops and the counters of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Statistic {
    /// Packets passed to the host unchanged.
    PassedToHost = 0,
    /// Packets rewritten and redirected.
    Forwarded = 1,
    /// ARP, neighbour discovery and echo requests answered.
    LocalReplies = 2,
    /// TCP resets sent instead of forwarding.
    TcpResetsSent = 3,
    /// Offloaded checksums completed.
    ChecksumsCompleted = 4,
    /// ICMP errors sent instead of forwarding.
    IcmpErrorsSent = 5,
    /// ICMP errors forwarded to the sender of the embedded packet.
    IcmpErrorsForwarded = 6,
    /// Rejects suppressed because the reject budget was spent.
    RejectsSuppressed = 7,
}

impl Statistic {
    /// All statistics, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::PassedToHost,
        Self::Forwarded,
        Self::LocalReplies,
        Self::TcpResetsSent,
        Self::ChecksumsCompleted,
        Self::IcmpErrorsSent,
        Self::IcmpErrorsForwarded,
        Self::RejectsSuppressed,
    ];

    /// Number of statistics.
    pub const COUNT: usize = Self::ALL.len();

    /// Returns the statistic's stable name, as metrics and tables show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PassedToHost => "passed_to_host",
            Self::Forwarded => "forwarded",
            Self::LocalReplies => "local_replies",
            Self::TcpResetsSent => "tcp_resets_sent",
            Self::ChecksumsCompleted => "checksums_completed",
            Self::IcmpErrorsSent => "icmp_errors_sent",
            Self::IcmpErrorsForwarded => "icmp_errors_forwarded",
            Self::RejectsSuppressed => "rejects_suppressed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices_of_all() {
        for (index, statistic) in Statistic::ALL.iter().enumerate() {
            assert_eq!(*statistic as usize, index);
        }
    }
}
