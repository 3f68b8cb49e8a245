//! Counting of the ports that SNAT addresses use.

use std::collections::HashMap;

use gateway_common::{Family, IpAddress, flow::FlowKey};

use crate::agent::status::SnatUsage;

/// SNAT address: network number and address.
type SnatAddress = (u32, IpAddress);

/// Server by which SNAT distinguishes flows: address, port, protocol.
type SnatServer = (IpAddress, u16, u8);

/// Counter of flows by SNAT address and server.
#[derive(Debug, Default)]
pub(super) struct SnatPortCounter(HashMap<SnatAddress, HashMap<SnatServer, u64>>);

impl SnatPortCounter {
    /// Counts a flow, given the key of its entry towards the consumer.
    pub(super) fn count<F: Family>(&mut self, key: &FlowKey<F>) {
        let address = (key.network_proto.network(), F::to_mapped(key.destination));
        let protocol = key.network_proto.protocol();
        let server = (F::to_mapped(key.source), key.ports.source().get(), protocol);
        let servers = self.0.entry(address).or_default();
        *servers.entry(server).or_default() += 1;
    }

    /// Returns the usage of each SNAT address.
    pub(super) fn into_usage(self) -> HashMap<SnatAddress, SnatUsage> {
        let counted = self.0.into_iter();
        counted
            .map(|(address, servers)| {
                let usage = SnatUsage {
                    flows: servers.values().sum(),
                    ports: servers.values().copied().max().unwrap_or(0),
                };
                (address, usage)
            })
            .collect()
    }
}
