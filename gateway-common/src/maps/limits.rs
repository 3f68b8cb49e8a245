//! Rate limits of connections, and the meters that enforce them.

use crate::maps::MAX_CONNECTIONS;

use bytemuck::{Pod, Zeroable};

/// Limits of one connection. A cost of 0 is no limit.
///
/// A rate is kept as its inverse, the time that one unit costs, so that the data path multiplies and never divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Limits {
    /// Number of flows at the same time. 0 is no limit.
    pub max_flows: u64,
    /// Nanoseconds that a new flow costs.
    pub new_flow_cost: u64,
    /// Nanoseconds that a packet costs, in each direction.
    pub packet_cost: u64,
    /// Nanoseconds that a byte of an IP packet costs, in each direction, times 2^[`Limits::BYTE_SHIFT`].
    pub byte_cost: u64,
}

impl Limits {
    /// Number of fractional bits of `byte_cost`.
    pub const BYTE_SHIFT: u32 = 16;
    /// Burst of new flows, in nanoseconds: as many as the rate allows in a second.
    pub const FLOW_BURST: u64 = 1_000_000_000;
    /// Burst of packets and bytes, in nanoseconds: as many as the rate allows in a tenth of a second.
    pub const PACKET_BURST: u64 = 100_000_000;
    /// Burst of rejects, in nanoseconds: as many as the rate allows in a second.
    pub const REJECT_BURST: u64 = 1_000_000_000;
}

/// Usage of one connection. All CPUs write it, atomically.
///
/// Each meter holds a theoretical arrival time (TAT) in nanoseconds since the machine started: the time at which
/// everything that was admitted so far is paid for (generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionUsage {
    /// Number of flows that are not closed. The agent corrects it by the number of flows in the tables.
    pub flows: u64,
    /// Meter of new flows.
    pub new_flow_meter: u64,
    /// Meters of packets, by [`Direction`](crate::flow::Direction).
    pub packet_meters: [u64; 2],
    /// Meters of bytes, by [`Direction`](crate::flow::Direction).
    pub byte_meters: [u64; 2],
    /// Meter of rejects sent: TCP resets and ICMP errors.
    pub reject_meter: u64,
    /// Number of established flows, which count against the connection's share of the flow table.
    pub established: u64,
}

/// Index in `CONN_USAGE` of packets that concern no connection.
pub const NO_CONNECTION_USAGE: u32 = MAX_CONNECTIONS;
