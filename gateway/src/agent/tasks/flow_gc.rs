//! Flow garbage collection (GC): removes expired flows, terminates both ends of revoked TCP flows, and counts what
//! connections and SNAT addresses use. Works on a snapshot without the controller's lock, because a full table takes
//! seconds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use gateway_common::{
    Be16, Family, IpAddress, V4, V6,
    flow::{CoarseTime, Direction, Flow, FlowKey, Table, TcpState},
    maps::{Backend, Egress},
    packet::Mac,
};

use crate::{
    agent::{connection_index::ConnectionIndex, controller::Controller},
    bpf::{
        flow_tables::{FlowTables, HasFlowTableFds},
        maps,
    },
    compile::flow_expiry::{FlowPair, FlowPolicy, is_orphan_expired, is_recent},
    inject::frames::TcpTermination,
};

const FLOW_TABLES: [Table; 2] = [Table::Established, Table::HalfOpen];

/// Snapshot of the state that flows are judged by.
#[derive(Debug)]
pub struct GcSnapshot {
    now: CoarseTime,
    /// Generation and timeouts, by connection slot.
    connections: ConnectionIndex,
    /// Backends, by slot.
    backends: BTreeMap<u32, Backend>,
    /// Next hops (egress slot and MAC address) of backends that have left their slot, by slot and generation.
    departed_backends: HashMap<(u32, u32), (u32, Mac)>,
    /// Egress entries with interface numbers, by attachment slot.
    egress: BTreeMap<u32, (Egress, u32)>,
    /// Flow counts of the data path, by connection slot; zeros are left out.
    flows: HashMap<u32, u64>,
}

impl GcSnapshot {
    /// Takes the snapshot of the controller's state. Flows are not counted yet.
    #[must_use]
    pub fn from_controller(controller: &Controller) -> Self {
        let snapshot = controller.map_snapshot();
        let egress = snapshot.egress.iter().filter_map(|(slot, egress)| {
            let ifindex = snapshot.tx_ports.get(slot)?;
            Some((*slot, (*egress, *ifindex)))
        });
        Self {
            flows: HashMap::new(),
            now: maps::now(),
            // The clone is cheap, because it shares the entries.
            connections: controller.connection_index().clone(),
            backends: snapshot.backends.clone(),
            departed_backends: controller.departed_backends().clone(),
            egress: egress.collect(),
        }
    }

    /// Returns the snapshot of a gateway without connections.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            now: maps::now(),
            connections: ConnectionIndex::default(),
            backends: BTreeMap::new(),
            departed_backends: HashMap::new(),
            egress: BTreeMap::new(),
            flows: HashMap::new(),
        }
    }

    /// Returns the next hops of backends that had left their slot, by slot and generation.
    #[must_use]
    pub const fn departed_backends(&self) -> &HashMap<(u32, u32), (u32, Mac)> {
        &self.departed_backends
    }

    /// Reads the data path's own flow counts of connections.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn count_flows(&mut self, tables: &FlowTables) -> Result<()> {
        let flows = tables.flows_by_connection();
        self.flows = flows.context("failed to read map USAGE")?;
        Ok(())
    }

    /// Returns the slots of connections that had flows, or have some in the report.
    pub fn slots_with_flows(&self, report: &GcReport) -> BTreeSet<u32> {
        let slots = self.flows.keys().chain(report.flows.keys());
        slots
            .filter(|slot| self.connections.get(**slot).is_some())
            .copied()
            .collect()
    }

    /// Returns the data path's flow count of the connection.
    #[must_use]
    pub fn flow_count(&self, slot: u32) -> u64 {
        self.flows.get(&slot).copied().unwrap_or(0)
    }

    /// Returns true if the flow's backend was removed, or its slot belongs to another one.
    fn is_backend_removed<F: Family>(&self, flow: &Flow<F>) -> bool {
        let (slot, generation) = flow.backend();
        self.backends
            .get(&slot)
            .is_none_or(|backend| backend.resource == 0 || backend.generation != generation)
    }

    /// Returns true if the flow's connection has the generation under which the flow was opened.
    fn is_approved<F: Family>(&self, flow: &Flow<F>) -> bool {
        self.connections
            .get(flow.connection_slot)
            .is_some_and(|policy| policy.generation == flow.generation)
    }

    /// Returns the policy by which the flow expires; `None` if its connection or its backend is gone.
    fn policy_for<F: Family>(&self, flow: &Flow<F>) -> Option<FlowPolicy> {
        let policy = self.connections.get(flow.connection_slot).copied();
        policy.filter(|_| !self.is_backend_removed(flow))
    }

    /// Returns the frames that terminate both ends of a TCP flow, with the interfaces that they are sent from.
    fn terminations<F: Family>(&self, pair: &FlowPair<F>) -> Vec<(u32, TcpTermination)> {
        let (forward, reverse) = (&pair.to_service, &pair.to_consumer);
        let (slot, generation) = forward.backend();
        let backend = self
            .backends
            .get(&slot)
            .filter(|backend| backend.generation == generation)
            .map(|backend| (backend.egress_slot, backend.mac.mac()))
            .filter(|(_, mac)| *mac != Mac::default())
            .or_else(|| self.departed_backends.get(&(slot, generation)).copied());
        let client = (reverse.egress_slot.into(), reverse.consumer_mac().mac());
        let to_consumer = self.termination(reverse, Some(client), forward, reverse);
        let to_service = self.termination(forward, backend, reverse, forward);
        to_consumer.into_iter().chain(to_service).collect()
    }

    /// Returns the frame that terminates one end of a TCP flow through `next_hop`. `template` is the entry that gives
    /// the frame its addresses, `sent` the entry of the packets that this end sends, `received` of those it receives.
    fn termination<F: Family>(
        &self,
        template: &Flow<F>,
        next_hop: Option<(u32, Mac)>,
        sent: &Flow<F>,
        received: &Flow<F>,
    ) -> Option<(u32, TcpTermination)> {
        let (slot, mac) = next_hop?;
        let (egress, ifindex) = self.egress.get(&slot)?;
        if egress.network != template.network {
            return None;
        }
        let socket = |address: F::Address, port: Be16| {
            SocketAddr::new(IpAddr::from(F::to_mapped(address)), port.get())
        };
        let termination = TcpTermination {
            macs: (egress.mac.mac(), mac),
            source: socket(template.source, template.ports.source()),
            destination: socket(template.destination, template.ports.destination()),
            sequence: sent.last_ack.get(),
            acknowledgement: received.last_ack.get(),
        };
        Some((*ifindex, termination))
    }
}

/// Usage of a SNAT address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnatUsage {
    /// Number of flows.
    pub flows: u64,
    /// Number of ports in use towards the server with the most flows: a port can be used once for each server.
    pub ports: u64,
}

/// Result of one collection.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Number of removed entries.
    pub removed: usize,
    /// Ends of TCP flows to be terminated, with the interfaces that lead to them.
    pub terminations: Vec<(u32, TcpTermination)>,
    /// True if flows looked revoked, but are not older than the snapshot: they must be checked again after one unit of
    /// [`CoarseTime`].
    pub needs_recheck: bool,
    /// Number of flows, by connection slot; revoked ones are left out.
    pub flows: HashMap<u32, u64>,
    /// Usage of SNAT addresses, by network number and address.
    pub snat: HashMap<(u32, IpAddress), SnatUsage>,
}

/// Server by which SNAT distinguishes flows: address, port, protocol.
type SnatServer = (IpAddress, u16, u8);

/// Collector of expired and revoked flows.
#[derive(Debug)]
pub struct FlowGc {
    tables: FlowTables,
    /// Revoked flows whose ends have been sent a reset.
    notified_v4: HashSet<FlowKey<V4>>,
    notified_v6: HashSet<FlowKey<V6>>,
}

impl FlowGc {
    /// Returns a collector for these tables.
    #[must_use]
    pub fn new(tables: FlowTables) -> Self {
        Self {
            tables,
            notified_v4: HashSet::new(),
            notified_v6: HashSet::new(),
        }
    }

    /// Reads the data path's flow counts into the snapshot, then collects.
    ///
    /// # Errors
    /// When a map can't be read or written.
    pub fn count_and_collect(&mut self, snapshot: &mut GcSnapshot) -> Result<GcReport> {
        snapshot.count_flows(&self.tables)?;
        self.collect(snapshot)
    }

    /// Iterates over all flow tables once.
    ///
    /// # Errors
    /// When a map can't be read or written.
    pub fn collect(&mut self, snapshot: &GcSnapshot) -> Result<GcReport> {
        let mut report = GcReport::default();
        let mut snat_ports: HashMap<(u32, IpAddress), HashMap<SnatServer, u64>> = HashMap::new();
        for table in FLOW_TABLES {
            let notified = &mut self.notified_v4;
            collect_table::<V4>(
                &self.tables,
                table,
                snapshot,
                notified,
                &mut report,
                &mut snat_ports,
            )?;
            let notified = &mut self.notified_v6;
            collect_table::<V6>(
                &self.tables,
                table,
                snapshot,
                notified,
                &mut report,
                &mut snat_ports,
            )?;
        }
        for (address, servers) in snat_ports {
            let used = SnatUsage {
                flows: servers.values().sum(),
                ports: servers.values().copied().max().unwrap_or(0),
            };
            report.snat.insert(address, used);
        }
        Ok(report)
    }
}

fn collect_table<F: HasFlowTableFds>(
    tables: &FlowTables,
    table: Table,
    snapshot: &GcSnapshot,
    notified: &mut HashSet<FlowKey<F>>,
    report: &mut GcReport,
    snat_ports: &mut HashMap<(u32, IpAddress), HashMap<SnatServer, u64>>,
) -> Result<()> {
    let mut candidates = Vec::new();
    let mut revoked = HashSet::new();
    tables
        .for_each(table, |key: &FlowKey<F>, flow: &Flow<F>| {
            let mut needs_check = !is_recent(flow, snapshot.now);
            match flow.direction() {
                Direction::ToService => {
                    if !snapshot.is_approved(flow) || snapshot.is_backend_removed(flow) {
                        // A flow that was opened after the snapshot may belong to a connection or backend that is
                        // newer than the snapshot too.
                        if snapshot.now.since(flow.created_at()) > 0 {
                            revoked.insert(*key);
                            needs_check = true;
                        } else {
                            report.needs_recheck = true;
                        }
                    } else {
                        *report.flows.entry(flow.connection_slot).or_default() += 1;
                    }
                }
                Direction::ToConsumer => {
                    let address = (key.network_proto.network(), F::to_mapped(key.destination));
                    let protocol = key.network_proto.protocol();
                    let server = (F::to_mapped(key.source), key.ports.source().get(), protocol);
                    *snat_ports
                        .entry(address)
                        .or_default()
                        .entry(server)
                        .or_default() += 1;
                }
            }
            // An entry that was used recently has not expired. For the others, the reverse entry may have been
            // used, so the pair is checked below.
            if needs_check {
                candidates.push((*key, *flow));
            }
        })
        .context("failed to read the flow tables")?;
    if table == Table::Established {
        notified.retain(|key| revoked.contains(key));
    }
    for (key, flow) in candidates {
        let reverse = tables.get(table, &flow.reverse_key(key.network_proto.protocol()))?;
        let Some(pair) = reverse.and_then(|reverse| FlowPair::from_entries(key, flow, reverse))
        else {
            // The partner was evicted or removed, so the remaining entry can't carry traffic.
            if is_orphan_expired(&flow, snapshot.now) {
                report.removed += usize::from(tables.remove(table, &key)?);
            }
            continue;
        };
        let open = matches!(
            pair.tcp_state(),
            Some(TcpState::Established | TcpState::HalfClosed)
        );
        let is_revoked = revoked.contains(&pair.key);
        let expired = pair.is_expired(snapshot.now, snapshot.policy_for(&pair.to_service));
        if table == Table::Established
            && open
            && (is_revoked || expired)
            && !notified.contains(&pair.key)
        {
            report.terminations.extend(snapshot.terminations(&pair));
            notified.insert(pair.key);
        }
        if expired {
            // The reverse entry reserves the source port, so it is removed last.
            report.removed += usize::from(tables.remove(table, &pair.key)?);
            let reverse = pair.to_service.reverse_key(key.network_proto.protocol());
            report.removed += usize::from(tables.remove(table, &reverse)?);
        }
    }
    Ok(())
}
