//! Flows: listing them, and removing those that are idle.

use std::{collections::HashMap, net::SocketAddr};

use anyhow::{Context as _, Result};
use gateway_common::{
    Be16, Family, V4, V6,
    flow::{Direction, Flow, FlowKey, Table, TcpState, Tick},
};

use crate::{
    agent::core::Core,
    dataplane::{
        expiry::{Pair, Standing, half_expired},
        maps::{self, Tables},
    },
    model::{Reference, service::Timeouts},
};

/// A flow, of either family, and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// 6 (TCP) or 17 (UDP).
    pub protocol: u32,
    /// The consumer's client.
    pub client: SocketAddr,
    /// The endpoint's address and port.
    pub destination: SocketAddr,
    /// Where it appears from in the provider's network.
    pub nat: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// The connection's link slot.
    pub link: u32,
    /// The connection's generation when the flow was opened.
    pub generation: u32,
    /// The TCP state, if it is TCP.
    pub tcp_state: Option<TcpState>,
    /// Whether the backend has sent anything.
    pub answered: bool,
    /// When it was opened.
    pub created: Tick,
    /// When the last packet passed, either way.
    pub last_seen: Tick,
    /// The table that it is in.
    pub table: Table,
}

impl Found {
    fn new<F: Family>(pair: &Pair<F>, table: Table) -> Self {
        let socket =
            |address: F::Address, port: Be16| SocketAddr::new(F::widen(address).into(), port.get());
        let (key, flow) = (&pair.key, &pair.to_service);
        Self {
            protocol: key.protocol,
            client: socket(key.source, key.source_port),
            destination: socket(key.destination, key.destination_port),
            nat: socket(flow.source, flow.source_port),
            backend: socket(flow.destination, flow.destination_port),
            link: flow.link,
            generation: flow.generation,
            tcp_state: pair.tcp_state(),
            answered: pair.to_consumer.seen != 0,
            created: Tick(flow.created),
            last_seen: pair.last_seen(),
            table,
        }
    }
}

const TABLES: [Table; 2] = [Table::Established, Table::Embryonic];

impl Core {
    /// The flows whose connection has this link slot, or all; at most `limit`, in no order.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn flows(&self, slot: Option<u32>, limit: usize) -> Result<Vec<Found>> {
        let mut flows = Vec::new();
        for table in TABLES {
            self.add_flows::<V4>(table, slot, limit, &mut flows)?;
            self.add_flows::<V6>(table, slot, limit, &mut flows)?;
        }
        Ok(flows)
    }

    fn add_flows<F: Tables>(
        &self,
        table: Table,
        slot: Option<u32>,
        limit: usize,
        flows: &mut Vec<Found>,
    ) -> Result<()> {
        let mut candidates = Vec::new();
        self.maps
            .for_each_flow(table, |key: &FlowKey<F>, flow: &Flow<F>| {
                let wanted = slot.is_none_or(|slot| slot == flow.link);
                if wanted
                    && flow.direction() == Direction::ToService
                    && candidates.len() + flows.len() < limit
                {
                    candidates.push((*key, *flow));
                }
            })
            .context("could not read the flows")?;
        for (key, flow) in candidates {
            if let Some(pair) = self.pair(table, key, flow)? {
                flows.push(Found::new(&pair, table));
            }
        }
        Ok(())
    }

    /// How many flows a table holds, of both families.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn count_flows(&self, table: Table) -> Result<u64> {
        Ok(self.count_entries::<V4>(table)? + self.count_entries::<V6>(table)?)
    }

    fn count_entries<F: Tables>(&self, table: Table) -> Result<u64> {
        let mut entries = 0;
        self.maps
            .for_each_flow(table, |_, flow: &Flow<F>| {
                entries += u64::from(flow.direction() == Direction::ToService);
            })
            .context("could not read the flows")?;
        Ok(entries)
    }

    /// Removes flows that have been idle for too long; says how many entries.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self) -> Result<usize> {
        let standings = self.standings();
        let mut removed = 0;
        for table in TABLES {
            removed += self.sweep_table::<V4>(table, &standings)?;
            removed += self.sweep_table::<V6>(table, &standings)?;
        }
        Ok(removed)
    }

    fn sweep_table<F: Tables>(
        &mut self,
        table: Table,
        standings: &HashMap<u32, Standing>,
    ) -> Result<usize> {
        let now = maps::now();
        // An entry that was used a moment ago is not looked at again; of the others the partner may
        // have been.
        let mut idle = Vec::new();
        self.maps
            .for_each_flow(table, |key: &FlowKey<F>, flow: &Flow<F>| {
                if half_expired(flow, now) {
                    idle.push((*key, *flow));
                }
            })
            .context("could not read the flows")?;
        let mut removed = 0;
        for (key, flow) in idle {
            match self.pair(table, key, flow)? {
                Some(pair) if !pair.expired(now, standings.get(&flow.link).copied()) => {}
                Some(pair) => {
                    // The reverse entry is the reservation of the port, so it goes last.
                    let reverse = pair.to_service.reverse_key(key.protocol);
                    self.maps.remove_flow(table, &pair.key)?;
                    self.maps.remove_flow(table, &reverse)?;
                    removed += 2;
                }
                // Its partner was evicted or removed; what is left leads nowhere.
                None => {
                    self.maps.remove_flow(table, &key)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// The entry with its partner, if that is there.
    fn pair<F: Tables>(
        &self,
        table: Table,
        key: FlowKey<F>,
        flow: Flow<F>,
    ) -> Result<Option<Pair<F>>> {
        let reverse = self.maps.flow(table, &flow.reverse_key(key.protocol))?;
        Ok(reverse.and_then(|reverse| Pair::of(key, flow, reverse)))
    }

    /// How connections stand, by link slot.
    fn standings(&self) -> HashMap<u32, Standing> {
        let timeouts: HashMap<&Reference, Timeouts> = self
            .state
            .services
            .iter()
            .map(|(reference, record)| (reference, record.object.spec.timeouts))
            .collect();
        self.state
            .endpoints
            .values()
            .map(|record| {
                let connection = &record.object.connection;
                let service = &record.object.service_identity.reference;
                let standing = Standing {
                    generation: connection.generation,
                    timeouts: timeouts.get(service).copied().unwrap_or_default(),
                };
                (connection.slot, standing)
            })
            .collect()
    }
}
