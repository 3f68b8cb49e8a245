//! Rate limits of connections, and their use.

use crate::maps::MAX_CONNECTIONS;

use bytemuck::{Pod, Zeroable};

/// What one connection may use. A cost of 0 is no limit. Rates are kept as what one unit costs in
/// time, so that the data path multiplies and never divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Limits {
    /// Flows at the same time; 0 is no limit.
    pub max_flows: u64,
    /// Nanoseconds that a new flow costs.
    pub new_flow_cost: u64,
    /// Nanoseconds that a packet costs, in each direction.
    pub packet_cost: u64,
    /// Nanoseconds that a byte of an IP packet costs, in each direction, times
    /// 2^[`Limits::BYTE_SHIFT`].
    pub byte_cost: u64,
}

impl Limits {
    /// Binary digits behind the point of `byte`.
    pub const BYTE_SHIFT: u32 = 16;
    /// How far new flows may run ahead of their rate, in nanoseconds: a second's worth at once.
    pub const FLOW_BURST: u64 = 1_000_000_000;
    /// The same for packets and bytes: a tenth of a second's worth.
    pub const PACKET_BURST: u64 = 100_000_000;
    /// The same for refusals.
    pub const REJECT_BURST: u64 = 1_000_000_000;
}

/// What one connection uses now: written by all CPUs, atomically. The meters hold the time, in
/// nanoseconds since the machine started, at which everything let through so far is paid for
/// (the generic cell rate algorithm of ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionUsage {
    /// Flows; the agent corrects it by what it counts in the tables.
    pub flows: u64,
    /// The meter of new flows.
    pub new_flow_meter: u64,
    /// The meters of packets, by [`Direction`](crate::flow::Direction).
    pub packet_meters: [u64; 2],
    /// The meters of bytes.
    pub byte_meters: [u64; 2],
    /// The meter of refusals sent: resets and ICMP errors.
    pub reject_meter: u64,
    /// Fills a cache line.
    pub reserved: u64,
}

/// The place in `CONN_USAGE` of what concerns no connection.
pub const NO_CONNECTION_USAGE: u32 = MAX_CONNECTIONS;
