//! Counters.

use bytemuck::{Pod, Zeroable};

/// Counts what crossed for one connection. Bytes are those of the IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionCounters {
    /// Packets from the consumer to the service.
    pub packets_to_service: u64,
    /// Their bytes.
    pub bytes_to_service: u64,
    /// Packets from the service to the consumer.
    pub packets_to_consumer: u64,
    /// Their bytes.
    pub bytes_to_consumer: u64,
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets dropped because the connection is not approved. A flood is made of these, so they are counted
    /// where it costs least; other reasons are in `CONN_DROPS`.
    pub not_approved: u64,
}

/// Key of the drops counted for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionDropKey {
    /// The link slot.
    pub connection_slot: u32,
    /// The [`DropReason`](crate::DropReason)'s number.
    pub reason: u32,
}

/// What the data path counts beside drops and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Statistic {
    /// Packets handed to the host untouched.
    PassedToHost = 0,
    /// Packets rewritten and redirected.
    Forwarded = 1,
    /// ARP and echo answered.
    LocalReplies = 2,
    /// TCP resets sent instead of forwarding.
    TcpResetsSent = 3,
    /// Offloaded checksums completed.
    ChecksumsCompleted = 4,
    /// Flows that both sides agreed to, but that found the table of established flows full. They
    /// go on, but can be evicted.
    EstablishedTableFull = 5,
    /// ICMP errors sent instead of forwarding.
    IcmpErrorsSent = 6,
    /// ICMP errors of others forwarded.
    IcmpErrorsForwarded = 7,
    /// Refusals that were not sent, for being too many.
    RejectsSuppressed = 8,
}

impl Statistic {
    /// All of them, by number.
    pub const ALL: &'static [Self] = &[
        Self::PassedToHost,
        Self::Forwarded,
        Self::LocalReplies,
        Self::TcpResetsSent,
        Self::ChecksumsCompleted,
        Self::EstablishedTableFull,
        Self::IcmpErrorsSent,
        Self::IcmpErrorsForwarded,
        Self::RejectsSuppressed,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its stable name in tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PassedToHost => "passed_to_host",
            Self::Forwarded => "forwarded",
            Self::LocalReplies => "local_replies",
            Self::TcpResetsSent => "tcp_resets_sent",
            Self::ChecksumsCompleted => "checksums_completed",
            Self::EstablishedTableFull => "established_table_full",
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
