//! What the maps hold, as plain values: the data path's configuration, without the flows.

use std::collections::BTreeMap;

use gateway_common::maps::{
    AddressKey, Attachment, Backend, Connection, Egress, Limits, LocalAddress, NatAddress, Port,
    PortKey,
};

/// The contents of all the maps that the agent writes. Places of arrays that are not listed are all
/// zeros, but for the generations of free backend slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapSnapshot {
    /// By interface index.
    pub attachments: BTreeMap<u32, Attachment>,
    /// By attachment slot.
    pub egress: BTreeMap<u32, Egress>,
    /// Interface indexes, by attachment slot.
    pub tx_ports: BTreeMap<u32, u32>,
    /// Addresses that are answered for.
    pub addresses: BTreeMap<AddressKey, LocalAddress>,
    /// Ports that resources offer.
    pub ports: BTreeMap<PortKey, Port>,
    /// Backend slots, by place.
    pub maglev: BTreeMap<u32, u32>,
    /// By backend slot. Free slots that were used once stay listed, for their generation.
    pub backends: BTreeMap<u32, Backend>,
    /// By place.
    pub nat_addresses: BTreeMap<u32, NatAddress>,
    /// By link slot.
    pub connections: BTreeMap<u32, Connection>,
    /// What connections may use, by link slot; those without limits left out.
    pub limits: BTreeMap<u32, Limits>,
}
