//! The maps, the counters and the clock of a simulation.

use crate::{
    drop_reason::DropReason,
    family::{V4, V6},
    flow::{CoarseTime, DatagramKey, FlowTableUsage, FragmentRecord},
    maps::{
        AddressConflict, AddressKey, Attachment, AttachmentDropKey, Backend, Connection,
        ConnectionCounters, ConnectionDropKey, ConnectionUsage, Egress, IdentificationState,
        Limits, LocalAddress, NatAddress, Port, PortKey, RejectMeters, Statistic,
    },
    sim::{
        calls::HelperCallCounts,
        tables::{AtomicMap, SimFlowTable},
    },
};

use std::collections::HashMap;

/// Everything that the data path reads and writes, except the packet itself.
#[derive(Clone, Debug)]
pub struct SimMaps {
    /// Attachments by interface index.
    pub attachments: HashMap<u32, Attachment>,
    /// Sending sides of attachments, by egress slot.
    pub egress: HashMap<u32, Egress>,
    /// Local addresses.
    pub addresses: HashMap<AddressKey, LocalAddress>,
    /// Ports that resources offer.
    pub ports: HashMap<PortKey, Port>,
    /// Backend slots, by index in the Maglev tables.
    pub maglev: HashMap<u32, u32>,
    /// Backends by slot.
    pub backends: HashMap<u32, Backend>,
    /// SNAT addresses by index.
    pub nat_addresses: HashMap<u32, NatAddress>,
    /// Connections by slot.
    pub connections: HashMap<u32, Connection>,
    /// Flow table of IPv4.
    pub flows_v4: SimFlowTable<V4>,
    /// Flow table of IPv6, which also holds NAT46 flows.
    pub flows_v6: SimFlowTable<V6>,
    /// Usage of the flow tables: IPv4 at 0, IPv6 at 1.
    pub flow_table_usage: AtomicMap<FlowTableUsage>,
    /// Number of flows that each flow table is made for.
    pub flow_table_size: u64,
    /// Established flows that a connection may have, as a multiple of those that are free, times 256.
    pub flow_table_share: u64,
    /// Limits of connections, by slot.
    pub limits: HashMap<u32, Limits>,
    /// Usage of connections, by slot.
    pub usage: AtomicMap<ConnectionUsage>,
    /// Meters of rejects, by their index.
    pub reject_meters: AtomicMap<RejectMeters>,
    /// Records of fragmented IPv4 datagrams.
    pub fragment_records_v4: HashMap<DatagramKey<V4>, FragmentRecord>,
    /// Records of fragmented IPv6 datagrams.
    pub fragment_records_v6: HashMap<DatagramKey<V6>, FragmentRecord>,
    /// Allocation state of identifications, by bucket.
    pub identification_states: AtomicMap<IdentificationState>,
    /// Other hosts that claim a local address.
    pub conflicts: HashMap<AddressKey, AddressConflict>,
    /// Counts of the calls to the platform.
    pub helper_calls: HelperCallCounts,
    /// The coarse time.
    pub now: CoarseTime,
    /// Makes the simulated helpers fail that resize packets and compute partial checksums.
    pub helpers_fail: bool,
    /// Sends every packet to the slow path.
    pub fast_path_disabled: bool,
    /// Nanoseconds that are added to `now` for the rate limits.
    pub extra_nanoseconds: u64,
    /// Nanoseconds that a reject costs. 0 is no limit.
    pub reject_cost: u64,
    /// Seed of the hashes.
    pub hash_seed: u64,
    /// Number of drops, by reason.
    pub drops: HashMap<DropReason, u64>,
    /// Number of drops, by connection and reason.
    pub connection_drops: HashMap<ConnectionDropKey, u64>,
    /// Number of drops, by attachment and reason.
    pub attachment_drops: HashMap<AttachmentDropKey, u64>,
    /// Counters of connections, by slot.
    pub connection_counters: HashMap<u32, ConnectionCounters>,
    /// Statistics.
    pub statistics: HashMap<Statistic, u64>,
}

impl Default for SimMaps {
    fn default() -> Self {
        Self {
            attachments: HashMap::new(),
            egress: HashMap::new(),
            addresses: HashMap::new(),
            ports: HashMap::new(),
            maglev: HashMap::new(),
            backends: HashMap::new(),
            nat_addresses: HashMap::new(),
            connections: HashMap::new(),
            flows_v4: SimFlowTable::default(),
            flows_v6: SimFlowTable::default(),
            flow_table_usage: AtomicMap::default(),
            flow_table_size: 256,
            flow_table_share: 4 << 8,
            limits: HashMap::new(),
            usage: AtomicMap::default(),
            reject_meters: AtomicMap::default(),
            identification_states: AtomicMap::default(),
            helper_calls: HelperCallCounts::default(),
            fragment_records_v4: HashMap::new(),
            fragment_records_v6: HashMap::new(),
            conflicts: HashMap::new(),
            now: CoarseTime(1),
            helpers_fail: false,
            fast_path_disabled: false,
            extra_nanoseconds: 0,
            reject_cost: 0,
            hash_seed: 0,
            drops: HashMap::new(),
            connection_drops: HashMap::new(),
            attachment_drops: HashMap::new(),
            connection_counters: HashMap::new(),
            statistics: HashMap::new(),
        }
    }
}
