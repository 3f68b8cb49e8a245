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
    flow::{Direction, Flow, FlowKey, Table, TcpState, Tick},
    maps::{Backend, Egress},
    packet::Mac,
};

use crate::{
    agent::{core::Core, standings::Standings},
    dataplane::{
        expiry::{Pair, Standing, half_expired, is_recent},
        flow_tables::{Described, FlowTables},
        maps,
    },
    wire::frames::Ending,
};

const TABLES: [Table; 2] = [Table::Established, Table::Embryonic];

/// What flows are judged by, as it was at one moment.
#[derive(Debug)]
pub struct Snapshot {
    now: Tick,
    /// By link slot.
    standings: Standings,
    /// By backend slot.
    backends: BTreeMap<u32, Backend>,
    /// The way to backends that have left their slot: by slot and generation.
    left: HashMap<(u32, u32), (u32, Mac)>,
    /// By attachment slot.
    egress: BTreeMap<u32, (Egress, u32)>,
    /// Flows as the data path counts them, by link slot; those with none left out.
    flows: HashMap<u32, u64>,
}

impl Snapshot {
    /// Of the agent's state; flows are not counted yet.
    #[must_use]
    pub fn of(core: &Core) -> Self {
        let contents = core.contents();
        let egress = contents.egress.iter().filter_map(|(slot, egress)| {
            let ifindex = contents.devices.get(slot)?;
            Some((*slot, (*egress, *ifindex)))
        });
        Self {
            flows: HashMap::new(),
            now: maps::now(),
            // Shared, not copied: there may be very many.
            standings: core.standings().clone(),
            backends: contents.backends.clone(),
            left: core.left_backends().clone(),
            egress: egress.collect(),
        }
    }

    /// Of a gateway without connections.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            now: maps::now(),
            standings: Standings::default(),
            backends: BTreeMap::new(),
            left: HashMap::new(),
            egress: BTreeMap::new(),
            flows: HashMap::new(),
        }
    }

    /// The way to backends that had left their slot, by slot and generation.
    #[must_use]
    pub const fn left(&self) -> &HashMap<(u32, u32), (u32, Mac)> {
        &self.left
    }

    /// Counts the flows that connections have, as the data path does.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn count(&mut self, tables: &FlowTables) -> Result<()> {
        let flows = tables.flows_in_use();
        self.flows = flows.context("could not read map USAGE")?;
        Ok(())
    }

    /// The link slots that had flows, or have some now.
    pub fn slots(&self, swept: &Swept) -> BTreeSet<u32> {
        let slots = self.flows.keys().chain(swept.flows.keys());
        slots
            .filter(|slot| self.standings.get(**slot).is_some())
            .copied()
            .collect()
    }

    /// How many flows the connection had, as the data path counts.
    #[must_use]
    pub fn flows(&self, slot: u32) -> u64 {
        self.flows.get(&slot).copied().unwrap_or(0)
    }

    /// Whether the flow's backend has left.
    fn backend_left<F: Family>(&self, flow: &Flow<F>) -> bool {
        let (slot, generation) = flow.backend();
        self.backends
            .get(&slot)
            .is_none_or(|backend| backend.resource == 0 || backend.generation != generation)
    }

    /// Whether the flow's connection stands as it did when the flow was opened.
    fn approved<F: Family>(&self, flow: &Flow<F>) -> bool {
        self.standings
            .get(flow.link)
            .is_some_and(|standing| standing.generation == flow.generation)
    }

    /// What the flow's time is measured by; nothing for one that was cut.
    fn standing<F: Family>(&self, flow: &Flow<F>) -> Option<Standing> {
        let standing = self.standings.get(flow.link).copied();
        standing.filter(|_| !self.backend_left(flow))
    }

    /// How both ends of a TCP connection are told that it is over: the frames, and the interfaces
    /// that they leave by.
    fn endings<F: Family>(&self, pair: &Pair<F>) -> Vec<(u32, Ending)> {
        let (there, back) = (&pair.to_service, &pair.to_consumer);
        let (slot, generation) = there.backend();
        let backend = self
            .backends
            .get(&slot)
            .filter(|backend| backend.generation == generation)
            .map(|backend| (backend.egress, backend.mac.mac()))
            .filter(|(_, mac)| *mac != Mac::default())
            .or_else(|| self.left.get(&(slot, generation)).copied());
        let station = (back.egress.into(), back.station().mac());
        let to_consumer = self.ending(back, Some(station), there, back);
        let to_service = self.ending(there, backend, back, there);
        to_consumer.into_iter().chain(to_service).collect()
    }

    /// How one end is told: by `way`, in the packets' form that entry `as_sent` gives them.
    /// `said` is the entry of what that end sends, `heard` of what it is sent.
    fn ending<F: Family>(
        &self,
        as_sent: &Flow<F>,
        way: Option<(u32, Mac)>,
        said: &Flow<F>,
        heard: &Flow<F>,
    ) -> Option<(u32, Ending)> {
        let (slot, station) = way?;
        let (egress, ifindex) = self.egress.get(&slot)?;
        if egress.network != as_sent.network {
            return None;
        }
        let socket = |address: F::Address, port: Be16| {
            SocketAddr::new(IpAddr::from(F::widen(address)), port.get())
        };
        let ending = Ending {
            stations: (egress.mac.mac(), station),
            source: socket(as_sent.source, as_sent.ports.source()),
            destination: socket(as_sent.destination, as_sent.ports.destination()),
            sequence: said.acknowledged.get(),
            acknowledgement: heard.acknowledged.get(),
        };
        Some((*ifindex, ending))
    }
}

/// What a source NAT address carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatUse {
    /// Flows from it.
    pub flows: u64,
    /// Ports that are taken towards the server that most go to: a port can be used once for each.
    pub ports: u64,
}

/// What was found, and done.
#[derive(Debug, Default)]
pub struct Swept {
    /// Entries removed.
    pub removed: usize,
    /// Who is to be told that a connection is over.
    pub endings: Vec<(u32, Ending)>,
    /// Whether flows were seen that may have been cut, but were too young to be sure of: they are to
    /// be looked at again after a tick.
    pub again: bool,
    /// Flows, by link slot; those that were cut left out.
    pub flows: HashMap<u32, u64>,
    /// What source NAT addresses carry, by network and address.
    pub nat: HashMap<(u32, IpAddress), NatUse>,
}

/// A server, as source NAT tells flows apart: address, port, protocol.
type Server = (IpAddress, u16, u8);

/// Goes through the flows.
#[derive(Debug)]
pub struct Sweeper {
    tables: FlowTables,
    /// Flows that were cut, and whose ends have been told.
    told_v4: HashSet<FlowKey<V4>>,
    told_v6: HashSet<FlowKey<V6>>,
}

impl Sweeper {
    /// For these tables.
    #[must_use]
    pub fn new(tables: FlowTables) -> Self {
        Self {
            tables,
            told_v4: HashSet::new(),
            told_v6: HashSet::new(),
        }
    }

    /// Counts the flows that connections have into the snapshot, and goes through all of them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn count_and_sweep(&mut self, snapshot: &mut Snapshot) -> Result<Swept> {
        snapshot.count(&self.tables)?;
        self.sweep(snapshot)
    }

    /// Goes through all of them once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self, snapshot: &Snapshot) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut taken: HashMap<(u32, IpAddress), HashMap<Server, u64>> = HashMap::new();
        for table in TABLES {
            let told = &mut self.told_v4;
            sweep_table::<V4>(&self.tables, table, snapshot, told, &mut swept, &mut taken)?;
            let told = &mut self.told_v6;
            sweep_table::<V6>(&self.tables, table, snapshot, told, &mut swept, &mut taken)?;
        }
        for (address, servers) in taken {
            let used = NatUse {
                flows: servers.values().sum(),
                ports: servers.values().copied().max().unwrap_or(0),
            };
            swept.nat.insert(address, used);
        }
        Ok(swept)
    }
}

fn sweep_table<F: Described>(
    tables: &FlowTables,
    table: Table,
    snapshot: &Snapshot,
    told: &mut HashSet<FlowKey<F>>,
    swept: &mut Swept,
    taken: &mut HashMap<(u32, IpAddress), HashMap<Server, u64>>,
) -> Result<()> {
    let mut candidates = Vec::new();
    let mut cut = HashSet::new();
    tables
        .for_each(table, |key: &FlowKey<F>, flow: &Flow<F>| {
            let mut judged = !is_recent(flow, snapshot.now);
            match flow.direction() {
                Direction::ToService => {
                    if !snapshot.approved(flow) || snapshot.backend_left(flow) {
                        // One that came after the snapshot may belong to what came after it too.
                        if snapshot.now.since(flow.created()) > 0 {
                            cut.insert(*key);
                            judged = true;
                        } else {
                            swept.again = true;
                        }
                    } else {
                        *swept.flows.entry(flow.link).or_default() += 1;
                    }
                }
                Direction::ToConsumer => {
                    let address = (key.realm.network(), F::widen(key.destination));
                    let protocol = key.realm.protocol();
                    let server = (F::widen(key.source), key.ports.source().get(), protocol);
                    *taken.entry(address).or_default().entry(server).or_default() += 1;
                }
            }
            // An entry that was used a moment ago is not looked at again; of the others the partner
            // may have been.
            if judged {
                candidates.push((*key, *flow));
            }
        })
        .context("could not read the flows")?;
    if table == Table::Established {
        told.retain(|key| cut.contains(key));
    }
    for (key, flow) in candidates {
        let reverse = tables.get(table, &flow.reverse_key(key.realm.protocol()))?;
        let Some(pair) = reverse.and_then(|reverse| Pair::of(key, flow, reverse)) else {
            // Its partner was evicted or removed; what is left leads nowhere.
            if half_expired(&flow, snapshot.now) {
                swept.removed += usize::from(tables.remove(table, &key)?);
            }
            continue;
        };
        let open = matches!(
            pair.tcp_state(),
            Some(TcpState::Established | TcpState::HalfClosed)
        );
        let is_cut = cut.contains(&pair.key);
        let expired = pair.expired(snapshot.now, snapshot.standing(&pair.to_service));
        if table == Table::Established && open && (is_cut || expired) && !told.contains(&pair.key) {
            swept.endings.extend(snapshot.endings(&pair));
            told.insert(pair.key);
        }
        if expired {
            // The reverse entry is the reservation of the port, so it goes last.
            swept.removed += usize::from(tables.remove(table, &pair.key)?);
            let reverse = pair.to_service.reverse_key(key.realm.protocol());
            swept.removed += usize::from(tables.remove(table, &reverse)?);
        }
    }
    Ok(())
}
