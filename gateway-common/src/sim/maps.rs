//! The maps and the clock of a simulation.

use crate::{
    drop_reason::DropReason,
    family::{V4, V6},
    flow::{CoarseTime, DatagramKey, FragmentRecord},
    maps::{
        AddressConflict, AddressKey, Attachment, Backend, Connection, ConnectionCounters,
        ConnectionDropKey, ConnectionUsage, Egress, IdentificationState, Limits, LocalAddress,
        NatAddress, Port, PortKey, Statistic,
    },
    sim::{
        calls::HelperCallCounts,
        tables::{AtomicMap, SimFlowTables},
    },
};

use std::collections::HashMap;

/// Everything the data path reads and writes, but for the packet itself.
#[derive(Clone, Debug)]
pub struct SimMaps {
    /// By interface index.
    pub attachments: HashMap<u32, Attachment>,
    /// By attachment slot.
    pub egress: HashMap<u32, Egress>,
    /// Addresses that are answered for.
    pub addresses: HashMap<AddressKey, LocalAddress>,
    /// FragmentRecord that resources offer.
    pub ports: HashMap<PortKey, Port>,
    /// Backend slots, by place.
    pub maglev: HashMap<u32, u32>,
    /// By backend slot.
    pub backends: HashMap<u32, Backend>,
    /// By place.
    pub nat_addresses: HashMap<u32, NatAddress>,
    /// By link slot.
    pub connections: HashMap<u32, Connection>,
    /// Flows of IPv4.
    pub flows_v4: SimFlowTables<V4>,
    /// Flows of IPv6.
    pub flows_v6: SimFlowTables<V6>,
    /// What connections may use, by link slot.
    pub limits: HashMap<u32, Limits>,
    /// What they use.
    pub usage: AtomicMap<ConnectionUsage>,
    /// Datagrams of IPv4 that came in fragments.
    pub fragment_records_v4: HashMap<DatagramKey<V4>, FragmentRecord>,
    /// The same of IPv6.
    pub fragment_records_v6: HashMap<DatagramKey<V6>, FragmentRecord>,
    /// Allocation state of identifications, by bucket.
    pub identification_states: AtomicMap<IdentificationState>,
    /// Stations that use an address of ours.
    pub conflicts: HashMap<AddressKey, AddressConflict>,
    /// What the environment was asked for.
    pub helper_calls: HelperCallCounts,
    /// The time.
    pub now: CoarseTime,
    /// The kernel's helpers fail: no packet's length is changed, nothing is summed up.
    pub helpers_fail: bool,
    /// Every packet goes the general way.
    pub fast_path_disabled: bool,
    /// What is added to it, in nanoseconds, for the meters.
    pub extra_nanoseconds: u64,
    /// What a refusal costs, in nanoseconds; 0 is no limit.
    pub reject_cost: u64,
    /// The key of the hashes.
    pub hash_seed: u64,
    /// Packets not forwarded.
    pub drops: HashMap<DropReason, u64>,
    /// The same for each connection.
    pub connection_drops: HashMap<ConnectionDropKey, u64>,
    /// What crossed, by link slot.
    pub connection_counters: HashMap<u32, ConnectionCounters>,
    /// Everything else that is counted.
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
            flows_v4: SimFlowTables::default(),
            flows_v6: SimFlowTables::default(),
            limits: HashMap::new(),
            usage: AtomicMap::default(),
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
            connection_counters: HashMap::new(),
            statistics: HashMap::new(),
        }
    }
}
