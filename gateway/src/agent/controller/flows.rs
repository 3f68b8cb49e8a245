//! Listing and counting of flows.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use gateway_common::{
    Be16, Family, V4, V6,
    flow::{CoarseTime, Direction, Flow, FlowKey, Table, TcpState},
};

use crate::{
    agent::controller::Controller, bpf::maps::HasFlowMaps, compile::flow_expiry::FlowPair,
};

/// Flow of either address family, with the table that holds it.
#[derive(Clone, Copy, Debug)]
pub struct ListedFlow {
    /// Protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// Client address and port in the consumer's network.
    pub client: SocketAddr,
    /// Address and port of the endpoint.
    pub destination: SocketAddr,
    /// SNAT address and port, which are the source in the provider's network.
    pub nat: SocketAddr,
    /// Address and port of the backend.
    pub backend: SocketAddr,
    /// Slot of the connection.
    pub connection_slot: u32,
    /// Generation of the connection when the flow was opened.
    pub generation: u32,
    /// TCP state; `None` for UDP.
    pub tcp_state: Option<TcpState>,
    /// True if the backend has sent a packet.
    pub answered: bool,
    /// Time at which the flow was opened.
    pub created: CoarseTime,
    /// Time of the last packet in either direction.
    pub last_seen: CoarseTime,
    /// Table that holds the flow.
    pub table: Table,
}

impl ListedFlow {
    fn new<F: Family>(pair: &FlowPair<F>, table: Table) -> Self {
        let socket = |address: F::Address, port: Be16| {
            SocketAddr::new(F::to_mapped(address).into(), port.get())
        };
        let (key, flow) = (&pair.key, &pair.to_service);
        Self {
            protocol: key.network_proto.protocol(),
            client: socket(key.source, key.ports.source()),
            destination: socket(key.destination, key.ports.destination()),
            nat: socket(flow.source, flow.ports.source()),
            backend: socket(flow.destination, flow.ports.destination()),
            connection_slot: flow.connection_slot,
            generation: flow.generation,
            tcp_state: pair.tcp_state(),
            answered: pair.to_consumer.tcp_flags_seen != 0,
            created: flow.created_at(),
            last_seen: pair.last_seen(),
            table,
        }
    }
}

impl Controller {
    /// Returns at most `limit` flows that the data path carries, of one connection slot or of all, in no order. Entries
    /// of revoked flows stay for a while, so that their peers' packets are rejected with the reason; they are left out.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn list_flows(&self, slot: Option<u32>, limit: usize) -> Result<Vec<ListedFlow>> {
        let mut flows = Vec::new();
        for table in Table::ALL {
            self.add_flows::<V4>(table, slot, limit, &mut flows)?;
            self.add_flows::<V6>(table, slot, limit, &mut flows)?;
        }
        Ok(flows)
    }

    fn add_flows<F: HasFlowMaps>(
        &self,
        table: Table,
        slot: Option<u32>,
        limit: usize,
        flows: &mut Vec<ListedFlow>,
    ) -> Result<()> {
        let mut candidates = Vec::new();
        self.datapath
            .maps
            .for_each_flow(table, |key: &FlowKey<F>, flow: &Flow<F>| {
                let is_selected = slot.is_none_or(|slot| slot == flow.connection_slot);
                if is_selected && self.is_live(flow) && candidates.len() + flows.len() < limit {
                    candidates.push((*key, *flow));
                }
            })
            .context("failed to read the flow tables")?;
        for (key, flow) in candidates {
            if let Some(pair) = self.find_pair(table, key, flow)? {
                flows.push(ListedFlow::new(&pair, table));
            }
        }
        Ok(())
    }

    /// Returns true if `flow` is the entry towards the service of a flow that the data path still carries: connection
    /// and backend have the generations under which it was opened.
    fn is_live<F: Family>(&self, flow: &Flow<F>) -> bool {
        let policy = self.connection_index().get(flow.connection_slot);
        let (slot, generation) = flow.backend();
        let backend = self.map_snapshot().backends.get(&slot);
        flow.direction() == Direction::ToService
            && policy.is_some_and(|standing| standing.generation == flow.generation)
            && backend.is_some_and(|found| found.resource != 0 && found.generation == generation)
    }

    /// Returns the number of flows that a table holds, of both address families.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn count_flows(&self, table: Table) -> Result<u64> {
        Ok(self.count_entries::<V4>(table)? + self.count_entries::<V6>(table)?)
    }

    fn count_entries<F: HasFlowMaps>(&self, table: Table) -> Result<u64> {
        let mut entries = 0;
        self.datapath
            .maps
            .for_each_flow(table, |_, flow: &Flow<F>| {
                entries += u64::from(flow.direction() == Direction::ToService);
            })
            .context("failed to read the flow tables")?;
        Ok(entries)
    }

    /// Returns the entry paired with its reverse entry, if that exists.
    fn find_pair<F: HasFlowMaps>(
        &self,
        table: Table,
        key: FlowKey<F>,
        flow: Flow<F>,
    ) -> Result<Option<FlowPair<F>>> {
        let reverse = self
            .datapath
            .maps
            .flow(table, &flow.reverse_key(key.network_proto.protocol()))?;
        Ok(reverse.and_then(|reverse| FlowPair::from_entries(key, flow, reverse)))
    }
}
