//! Contents of the configuration maps as plain values. Flow tables and counters are not part of it.

use std::collections::BTreeMap;

use gateway_common::maps::{
    AddressKey, Attachment, Backend, Connection, Egress, Limits, LocalAddress, NatAddress, Port,
    PortKey,
};

/// Contents of all maps that the agent configures.
///
/// Array entries that are not listed are all zeros. Free backend slots are an exception: those that were used before
/// are listed, because they keep a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapSnapshot {
    /// Attachments by interface index.
    pub attachments: BTreeMap<u32, Attachment>,
    /// Egress interfaces by attachment slot.
    pub egress: BTreeMap<u32, Egress>,
    /// Interface indexes by attachment slot.
    pub tx_ports: BTreeMap<u32, u32>,
    /// Local addresses: those that the gateway answers for.
    pub addresses: BTreeMap<AddressKey, LocalAddress>,
    /// Ports that resources offer, with the ranges of their Maglev table and SNAT addresses.
    pub ports: BTreeMap<PortKey, Port>,
    /// Backend slots by index in the Maglev array, which holds the tables of all resources.
    pub maglev: BTreeMap<u32, u32>,
    /// Backends by backend slot. Free slots that were used before stay listed with their generation.
    pub backends: BTreeMap<u32, Backend>,
    /// SNAT addresses by index in the array, which holds those of all services.
    pub nat_addresses: BTreeMap<u32, NatAddress>,
    /// Connections by connection slot.
    pub connections: BTreeMap<u32, Connection>,
    /// Rate limits by connection slot, without connections that have none.
    pub limits: BTreeMap<u32, Limits>,
}
