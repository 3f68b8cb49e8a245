//! Counting of the ports that SNAT addresses use.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use gateway_common::{Family, IpAddress, flow::FlowKey, pipeline::MIN_SOURCE_PORT};

use crate::agent::status::SnatUsage;

/// SNAT address: network number and address.
type SnatAddress = (u32, IpAddress);

/// Server by which SNAT distinguishes flows: address, port, protocol.
type SnatServer = (IpAddress, u16, u8);

/// True for source ports below [`MIN_SOURCE_PORT`].
type IsPrivileged = bool;

/// Counter of flows by SNAT address, server and range of source ports. The hash is a fast one, since there is one look-up for each flow.
#[derive(Debug, Default)]
pub(super) struct SnatPortCounter(
    HashMap<(SnatAddress, SnatServer, IsPrivileged), u64, FixedState>,
);

impl SnatPortCounter {
    /// Counts a flow, given the key of its entry towards the consumer.
    pub(super) fn count<F: Family>(&mut self, key: &FlowKey<F>) {
        let address = (key.network_proto.network(), F::to_mapped(key.destination));
        let protocol = key.network_proto.protocol();
        let server = (F::to_mapped(key.source), key.ports.source().get(), protocol);
        let is_privileged = key.ports.destination().get() < MIN_SOURCE_PORT;
        *self.0.entry((address, server, is_privileged)).or_default() += 1;
    }

    /// Returns the usage of each SNAT address.
    pub(super) fn into_usage(self) -> HashMap<SnatAddress, SnatUsage> {
        let mut usage = HashMap::<SnatAddress, SnatUsage>::new();
        for ((address, _, is_privileged), flows) in self.0 {
            let address = usage.entry(address).or_default();
            address.flows += flows;
            let ports = if is_privileged {
                &mut address.privileged_ports
            } else {
                &mut address.ports
            };
            *ports = flows.max(*ports);
        }
        usage
    }
}
