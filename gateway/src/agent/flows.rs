//! Flows: listing them, and removing those that are idle.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use gateway_common::flow::{Direction, Flow, FlowKey, Table};

use crate::{
    agent::core::Core,
    dataplane::{
        expiry::{Pair, Standing, half_expired},
        maps,
    },
    model::{Reference, service::Timeouts},
};

/// A flow and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its entries.
    pub pair: Pair,
    /// The table that they are in.
    pub table: Table,
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
            let mut candidates = Vec::new();
            self.maps
                .for_each_flow(table, |key, flow| {
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
                    flows.push(Found { pair, table });
                }
            }
        }
        Ok(flows)
    }

    /// Removes flows that have been idle for too long; says how many entries.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self) -> Result<usize> {
        let now = maps::now();
        let standings = self.standings();
        let mut removed = 0;
        for table in TABLES {
            // An entry that was used a moment ago is not looked at again; of the others the partner
            // may have been.
            let mut idle = Vec::new();
            self.maps
                .for_each_flow(table, |key, flow| {
                    if half_expired(flow, now) {
                        idle.push((*key, *flow));
                    }
                })
                .context("could not read the flows")?;
            for (key, flow) in idle {
                removed += self.sweep_entry(table, key, flow, now, &standings)?;
            }
        }
        Ok(removed)
    }

    fn sweep_entry(
        &mut self,
        table: Table,
        key: FlowKey,
        flow: Flow,
        now: gateway_common::flow::Tick,
        standings: &HashMap<u32, Standing>,
    ) -> Result<usize> {
        match self.pair(table, key, flow)? {
            Some(pair) => {
                if !pair.expired(now, standings.get(&flow.link).copied()) {
                    return Ok(0);
                }
                // The reverse entry is the reservation of the port, so it goes last.
                let reverse = pair.to_service.reverse_key(key.protocol);
                self.maps.remove_flow(table, &pair.key)?;
                self.maps.remove_flow(table, &reverse)?;
                Ok(2)
            }
            // Its partner was evicted or removed; what is left leads nowhere.
            None => {
                self.maps.remove_flow(table, &key)?;
                Ok(1)
            }
        }
    }

    /// The entry with its partner, if that is there.
    fn pair(&self, table: Table, key: FlowKey, flow: Flow) -> Result<Option<Pair>> {
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
