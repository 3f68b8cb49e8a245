//! Names of the maps, in the object file and in the folder where they are pinned.

/// [`Attachment`](crate::maps::Attachment) by [`attachment_index`](crate::maps::attachment_index): array.
pub const ATTACHMENTS: &str = "ATTACHMENTS";
/// [`Attachment`](crate::maps::Attachment) by ifindex, for interfaces whose index in the array is occupied: hash.
pub const ATTACH_OVERFLOW: &str = "ATTACH_OVERFLOW";
/// [`Egress`](crate::maps::Egress) by attachment slot: array.
pub const EGRESS: &str = "EGRESS";
/// Device by attachment slot: device map.
pub const TX_PORTS: &str = "TX_PORTS";
/// [`LocalAddress`](crate::maps::LocalAddress) by [`AddressKey`](crate::maps::AddressKey): hash.
pub const ADDRESSES: &str = "ADDRESSES";
/// [`Port`](crate::maps::Port) by [`PortKey`](crate::maps::PortKey): hash.
pub const PORTS: &str = "PORTS";
/// Backend slots, one region a resource: array of `u32`.
pub const MAGLEV: &str = "MAGLEV";
/// [`Backend`](crate::maps::Backend) by backend slot: array.
pub const BACKENDS: &str = "BACKENDS";
/// [`NatAddress`](crate::maps::NatAddress), one region a service: array.
pub const NAT_ADDRESSES: &str = "NAT_ADDRESSES";
/// [`Connection`](crate::maps::Connection) by connection slot: array.
pub const CONNECTIONS: &str = "CONNECTIONS";
/// [`Bucket`](crate::flow::Bucket) by index: array, the flow table of IPv4.
pub const FLOWS_V4: &str = "FLOWS_V4";
/// [`Bucket`](crate::flow::Bucket) by index: array, the flow table of IPv6.
pub const FLOWS_V6: &str = "FLOWS_V6";
/// [`FlowTableUsage`](crate::flow::FlowTableUsage), IPv4 at 0 and IPv6 at 1: array.
pub const FLOW_USAGE: &str = "FLOW_USAGE";
/// `u64` packets by [`DropReason`](crate::DropReason): per-CPU array.
pub const DROPS: &str = "DROPS";
/// `u64` packets by [`ConnectionDropKey`](crate::maps::ConnectionDropKey): per-CPU hash. Drops because the connection
/// is not approved are counted in [`ConnectionCounters`](crate::maps::ConnectionCounters).
pub const CONN_DROPS: &str = "CONN_DROPS";
/// `u64` packets by [`AttachmentDropKey`](crate::maps::AttachmentDropKey): per-CPU hash.
pub const ATTACH_DROPS: &str = "ATTACH_DROPS";
/// [`ConnectionCounters`](crate::maps::ConnectionCounters) by connection slot: per-CPU array.
pub const CONN_COUNTERS: &str = "CONN_COUNTERS";
/// `u64` by [`Statistic`](crate::maps::Statistic): per-CPU array.
pub const STATISTICS: &str = "STATISTICS";
/// [`Limits`](crate::maps::Limits) by connection slot: array.
pub const LIMITS: &str = "LIMITS";
/// [`ConnectionUsage`](crate::maps::ConnectionUsage) by connection slot: array.
pub const CONN_USAGE: &str = "CONN_USAGE";
/// [`RejectMeters`](crate::maps::RejectMeters) by connection slot, followed by those by attachment slot: array.
pub const REJECT_METERS: &str = "REJECT_METERS";
/// [`FragmentRecord`](crate::flow::FragmentRecord) by [`DatagramKey`](crate::flow::DatagramKey): LRU hash of the
/// fragmented datagrams of IPv4.
pub const FRAGMENTS_V4: &str = "FRAGMENTS_V4";
/// [`FragmentRecord`](crate::flow::FragmentRecord) by [`DatagramKey`](crate::flow::DatagramKey): LRU hash of the
/// fragmented datagrams of IPv6.
pub const FRAGMENTS_V6: &str = "FRAGMENTS_V6";
/// [`IdentificationState`](crate::maps::IdentificationState) by the hash of the addresses that datagrams leave
/// with: array.
pub const IDENTIFICATIONS: &str = "IDENTIFICATIONS";
/// [`AddressConflict`](crate::maps::AddressConflict) by [`AddressKey`](crate::maps::AddressKey): LRU hash of other
/// hosts that claim a local address.
pub const CONFLICTS: &str = "CONFLICTS";
/// [`LoggedPacket`](crate::maps::LoggedPacket)s: ring buffer, which is not pinned.
pub const PACKET_LOG: &str = "PACKET_LOG";
