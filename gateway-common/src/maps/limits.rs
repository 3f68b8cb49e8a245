//! Rate limits of connections, and the meters that enforce them.

use crate::{
    flow::FlowCount,
    maps::{MAX_ATTACHMENTS, MAX_CONNECTIONS},
};

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
    pub flows: FlowCount,
    /// Meter of new flows.
    pub new_flow_meter: u64,
    /// Meters of packets, by [`Direction`](crate::flow::Direction).
    pub packet_meters: [u64; 2],
    /// Meters of bytes, by [`Direction`](crate::flow::Direction).
    pub byte_meters: [u64; 2],
    /// Unused. Earlier versions metered rejects here.
    pub reserved: u64,
    /// Number of established flows, which count against the connection's share of the flow table.
    pub established: FlowCount,
}

/// Number of entries in `CONN_USAGE`. The last one is unused: the map keeps the size that it had in earlier versions, so
/// that an upgrade takes over its counts together with the flows.
pub const CONNECTION_USAGE_COUNT: u32 = MAX_CONNECTIONS + 1;

/// Meters of the rejects of one reject budget, in the form of [`ConnectionUsage`]. Refusals and path MTU errors are
/// metered apart: a port scan, which spends the former, must not end path MTU discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RejectMeters {
    /// Meter of TCP resets and ICMP errors, except those about a packet's size.
    pub refusals: u64,
    /// Meter of ICMP errors about a packet's size: fragmentation needed, packet too big.
    pub path_mtu: u64,
}

/// Number of entries in `REJECT_METERS`: one for each connection, followed by one for each attachment.
pub const REJECT_METER_COUNT: u32 = MAX_CONNECTIONS + MAX_ATTACHMENTS;

/// Returns the index in `REJECT_METERS` for packets of a connection, or for packets of none that arrive at an
/// attachment.
#[inline(always)]
#[must_use]
pub const fn reject_meters_index(connection_slot: u32, attachment_slot: u32) -> u32 {
    if connection_slot < MAX_CONNECTIONS {
        connection_slot
    } else {
        MAX_CONNECTIONS + attachment_slot
    }
}
