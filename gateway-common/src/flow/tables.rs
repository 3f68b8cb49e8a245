//! The flow tables of an address family.

/// Which of the two tables a flow entry lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Flows both sides agreed to: never evicted.
    Established,
    /// Flows that are being opened: the least recently used makes room.
    HalfOpen,
}
