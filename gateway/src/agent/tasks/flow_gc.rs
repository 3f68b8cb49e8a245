//! Going through the flows: those that are idle for too long are removed, both ends of those that
//! were cut are told, and what connections and source NAT addresses use is counted. Without the lock
//! on the agent's state: a full table takes seconds.

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

/// What flows are judged by, as it was at one moment.
#[derive(Debug)]
pub struct GcSnapshot {
    now: CoarseTime,
    /// By link slot.
    connections: ConnectionIndex,
    /// By backend slot.
    backends: BTreeMap<u32, Backend>,
    /// The way to backends that have left their slot: by slot and generation.
    departed_backends: HashMap<(u32, u32), (u32, Mac)>,
    /// By attachment slot.
    egress: BTreeMap<u32, (Egress, u32)>,
    /// Flows as the data path counts them, by link slot; those with none left out.
    flows: HashMap<u32, u64>,
}

impl GcSnapshot {
    /// Of the agent's state; flows are not counted yet.
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
            // Shared, not copied: there may be very many.
            connections: controller.connection_index().clone(),
            backends: snapshot.backends.clone(),
            departed_backends: controller.departed_backends().clone(),
            egress: egress.collect(),
        }
    }

    /// Of a gateway without connections.
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

    /// The way to backends that had left their slot, by slot and generation.
    #[must_use]
    pub const fn departed_backends(&self) -> &HashMap<(u32, u32), (u32, Mac)> {
        &self.departed_backends
    }

    /// Counts the flows that connections have, as the data path does.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn count_flows(&mut self, tables: &FlowTables) -> Result<()> {
        let flows = tables.flows_by_connection();
        self.flows = flows.context("could not read map USAGE")?;
        Ok(())
    }

    /// The link slots that had flows, or have some now.
    pub fn slots_with_flows(&self, report: &GcReport) -> BTreeSet<u32> {
        let slots = self.flows.keys().chain(report.flows.keys());
        slots
            .filter(|slot| self.connections.get(**slot).is_some())
            .copied()
            .collect()
    }

    /// How many flows the connection had, as the data path counts.
    #[must_use]
    pub fn flow_count(&self, slot: u32) -> u64 {
        self.flows.get(&slot).copied().unwrap_or(0)
    }

    /// Whether the flow's backend has left.
    fn is_backend_removed<F: Family>(&self, flow: &Flow<F>) -> bool {
        let (slot, generation) = flow.backend();
        self.backends
            .get(&slot)
            .is_none_or(|backend| backend.resource == 0 || backend.generation != generation)
    }

    /// Whether the flow's connection stands as it did when the flow was opened.
    fn is_approved<F: Family>(&self, flow: &Flow<F>) -> bool {
        self.connections
            .get(flow.connection_slot)
            .is_some_and(|policy| policy.generation == flow.generation)
    }

    /// What the flow's time is measured by; nothing for one that was cut.
    fn policy_for<F: Family>(&self, flow: &Flow<F>) -> Option<FlowPolicy> {
        let policy = self.connections.get(flow.connection_slot).copied();
        policy.filter(|_| !self.is_backend_removed(flow))
    }

    /// How both ends of a TCP connection are told that it is over: the frames, and the interfaces
    /// that they leave by.
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

    /// How one end is told: by `way`, in the packets' form that entry `as_sent` gives them.
    /// `said` is the entry of what that end sends, `heard` of what it is sent.
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

/// What a source NAT address carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnatUsage {
    /// Flows from it.
    pub flows: u64,
    /// Ports that are taken towards the server that most go to: a port can be used once for each.
    pub ports: u64,
}

/// What was found, and done.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Entries removed.
    pub removed: usize,
    /// Who is to be told that a connection is over.
    pub terminations: Vec<(u32, TcpTermination)>,
    /// Whether flows were seen that may have been cut, but were too young to be sure of: they are to
    /// be looked at again after a tick.
    pub needs_recheck: bool,
    /// Flows, by link slot; those that were cut left out.
    pub flows: HashMap<u32, u64>,
    /// What source NAT addresses carry, by network and address.
    pub snat: HashMap<(u32, IpAddress), SnatUsage>,
}

/// A server, as source NAT tells flows apart: address, port, protocol.
type SnatServer = (IpAddress, u16, u8);

/// Goes through the flows.
#[derive(Debug)]
pub struct FlowGc {
    tables: FlowTables,
    /// Flows that were cut, and whose ends have been told.
    notified_v4: HashSet<FlowKey<V4>>,
    notified_v6: HashSet<FlowKey<V6>>,
}

impl FlowGc {
    /// For these tables.
    #[must_use]
    pub fn new(tables: FlowTables) -> Self {
        Self {
            tables,
            notified_v4: HashSet::new(),
            notified_v6: HashSet::new(),
        }
    }

    /// Counts the flows that connections have into the snapshot, and goes through all of them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn count_and_collect(&mut self, snapshot: &mut GcSnapshot) -> Result<GcReport> {
        snapshot.count_flows(&self.tables)?;
        self.collect(snapshot)
    }

    /// Goes through all of them once.
    ///
    /// # Errors
    /// When the kernel refuses.
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
                        // One that came after the snapshot may belong to what came after it too.
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
            // An entry that was used a moment ago is not looked at again; of the others the partner
            // may have been.
            if needs_check {
                candidates.push((*key, *flow));
            }
        })
        .context("could not read the flows")?;
    if table == Table::Established {
        notified.retain(|key| revoked.contains(key));
    }
    for (key, flow) in candidates {
        let reverse = tables.get(table, &flow.reverse_key(key.network_proto.protocol()))?;
        let Some(pair) = reverse.and_then(|reverse| FlowPair::from_entries(key, flow, reverse))
        else {
            // Its partner was evicted or removed; what is left leads nowhere.
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
            // The reverse entry is the reservation of the port, so it goes last.
            report.removed += usize::from(tables.remove(table, &pair.key)?);
            let reverse = pair.to_service.reverse_key(key.network_proto.protocol());
            report.removed += usize::from(tables.remove(table, &reverse)?);
        }
    }
    Ok(())
}
