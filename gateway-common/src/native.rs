//! The second implementation of the environment: maps in ordinary memory, a clock that is set, a
//! packet in a vector. Tests, `explain` and fuzzing run the stages in it.

use std::{cell::UnsafeCell, collections::HashMap, ptr::NonNull, rc::Rc};

use crate::{
    DropReason, Environment, Family, V4, V6, Verdict,
    checksum::{self, Sum},
    environment::InsertError,
    flow::{Direction, Flow, FlowKey, FlowRef, Table, Tick},
    maps::{
        Address, AddressKey, Attachment, Backend, Egress, Link, LinkCounters, LinkDropKey, NO_LINK,
        NatAddress, Port, PortKey, Statistic,
    },
    process,
};

/// One flow table.
#[derive(Debug)]
pub struct FlowTable<F: Family> {
    entries: HashMap<FlowKey<F>, Rc<UnsafeCell<Flow<F>>>>,
    /// Inserting beyond this many fails.
    pub capacity: usize,
}

impl<F: Family> FlowTable<F> {
    /// All entries, copied, in the order of their keys.
    #[must_use]
    pub fn entries(&self) -> Vec<(FlowKey<F>, Flow<F>)> {
        let copy = |entry: &Rc<UnsafeCell<Flow<F>>>| {
            // SAFETY: nothing else runs while this copies; writes go through `FlowRef` only, in
            // the same thread (`Rc` keeps the table there).
            unsafe { *entry.get() }
        };
        let mut entries: Vec<_> = self.entries.iter().map(|(k, v)| (*k, copy(v))).collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    }

    /// Puts an entry in, or replaces it.
    pub fn set(&mut self, key: FlowKey<F>, flow: Flow<F>) {
        self.entries.insert(key, Rc::new(UnsafeCell::new(flow)));
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &FlowKey<F>) {
        self.entries.remove(key);
    }
}

/// The flow tables of a family.
#[derive(Debug)]
pub struct FlowTables<F: Family> {
    /// Flows both sides agreed to.
    pub established: FlowTable<F>,
    /// Flows being opened. It does not evict: a test that needs that removes entries itself.
    pub embryonic: FlowTable<F>,
}

impl<F: Family> Default for FlowTables<F> {
    fn default() -> Self {
        let table = || FlowTable {
            entries: HashMap::new(),
            capacity: 1 << 20,
        };
        Self {
            established: table(),
            embryonic: table(),
        }
    }
}

impl<F: Family> FlowTables<F> {
    const fn of(&self, table: Table) -> &FlowTable<F> {
        match table {
            Table::Established => &self.established,
            Table::Embryonic => &self.embryonic,
        }
    }

    const fn of_mut(&mut self, table: Table) -> &mut FlowTable<F> {
        match table {
            Table::Established => &mut self.established,
            Table::Embryonic => &mut self.embryonic,
        }
    }

    fn find(&self, table: Table, key: &FlowKey<F>) -> Option<FlowRef<F>> {
        let entry = self.of(table).entries.get(key)?;
        let pointer = NonNull::new(entry.get())?;
        // SAFETY: the cell's memory stays where it is until the entry is removed, and the stages
        // do not use a reference after they removed its entry, save to read from a copy.
        Some(unsafe { FlowRef::new(pointer) })
    }

    fn insert(
        &mut self,
        table: Table,
        key: &FlowKey<F>,
        flow: &Flow<F>,
    ) -> Result<(), InsertError> {
        let table = self.of_mut(table);
        if table.entries.contains_key(key) {
            return Err(InsertError::Exists);
        }
        if table.entries.len() >= table.capacity {
            return Err(InsertError::Full);
        }
        table.set(*key, *flow);
        Ok(())
    }
}

/// Everything the data path reads and writes, but for the packet itself.
#[derive(Debug)]
pub struct World {
    /// By interface index.
    pub attachments: HashMap<u32, Attachment>,
    /// By attachment slot.
    pub egress: HashMap<u32, Egress>,
    /// Addresses that are answered for.
    pub addresses: HashMap<AddressKey, Address>,
    /// Ports that resources offer.
    pub ports: HashMap<PortKey, Port>,
    /// Backend slots, by place.
    pub maglev: HashMap<u32, u32>,
    /// By backend slot.
    pub backends: HashMap<u32, Backend>,
    /// By place.
    pub nat_addresses: HashMap<u32, NatAddress>,
    /// By link slot.
    pub links: HashMap<u32, Link>,
    /// Flows of IPv4.
    pub flows_v4: FlowTables<V4>,
    /// Flows of IPv6.
    pub flows_v6: FlowTables<V6>,
    /// The time.
    pub now: Tick,
    /// The key of the hashes.
    pub seed: u64,
    /// Packets not forwarded.
    pub drops: HashMap<DropReason, u64>,
    /// The same for each connection.
    pub link_drops: HashMap<LinkDropKey, u64>,
    /// What crossed, by link slot.
    pub link_counters: HashMap<u32, LinkCounters>,
    /// Everything else that is counted.
    pub statistics: HashMap<Statistic, u64>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            attachments: HashMap::new(),
            egress: HashMap::new(),
            addresses: HashMap::new(),
            ports: HashMap::new(),
            maglev: HashMap::new(),
            backends: HashMap::new(),
            nat_addresses: HashMap::new(),
            links: HashMap::new(),
            flows_v4: FlowTables::default(),
            flows_v6: FlowTables::default(),
            now: Tick(1),
            seed: 0,
            drops: HashMap::new(),
            link_drops: HashMap::new(),
            link_counters: HashMap::new(),
            statistics: HashMap::new(),
        }
    }
}

impl World {
    /// Processes one frame that arrived at the interface, and returns the verdict and the frame as
    /// it is afterwards.
    pub fn process(&mut self, ifindex: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut run = Run {
            ifindex,
            packet: Packet::new(frame),
            world: self,
            scratch_v4: Box::default(),
            scratch_v6: Box::default(),
        };
        let verdict = process(&mut run);
        let packet = run.packet.bytes().to_vec();
        (verdict, packet)
    }
}

/// A frame whose bytes are written through pointers taken from a shared reference.
struct Packet {
    bytes: Box<[UnsafeCell<u8>]>,
    length: usize,
}

impl Packet {
    fn new(frame: &[u8]) -> Self {
        Self {
            bytes: frame.iter().copied().map(UnsafeCell::new).collect(),
            length: frame.len(),
        }
    }

    fn resize(&mut self, length: usize) {
        let mut bytes = self.bytes().to_vec();
        bytes.resize(length, 0);
        *self = Self::new(&bytes);
    }

    fn bytes(&self) -> &[u8] {
        let cells = &self.bytes[..self.length];
        // SAFETY: a cell has the layout of what is in it, and nothing writes while this is read.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }
}

/// One packet's run.
struct Run<'a> {
    ifindex: u32,
    packet: Packet,
    world: &'a mut World,
    scratch_v4: Box<UnsafeCell<Flow<V4>>>,
    scratch_v6: Box<UnsafeCell<Flow<V6>>>,
}

impl Environment for Run<'_> {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn packet_length(&self) -> usize {
        self.packet.length
    }

    fn packet(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        let cells = self.packet.bytes[..self.packet.length].get(offset..end)?;
        NonNull::new(UnsafeCell::raw_get(cells.as_ptr()))
    }

    fn resize(&mut self, length: usize) -> bool {
        self.packet.resize(length);
        true
    }

    fn sum(&mut self, offset: usize, length: usize) -> Option<Sum> {
        let end = offset.checked_add(length)?;
        self.packet
            .bytes()
            .get(offset..end)
            .map(checksum::sum_bytes)
    }

    fn opaque(&mut self, value: u16) -> u16 {
        value
    }

    fn scratch_v4(&mut self) -> Option<NonNull<Flow<V4>>> {
        NonNull::new(self.scratch_v4.get())
    }

    fn scratch_v6(&mut self) -> Option<NonNull<Flow<V6>>> {
        NonNull::new(self.scratch_v6.get())
    }

    fn now(&self) -> Tick {
        self.world.now
    }

    fn seed(&self) -> u64 {
        self.world.seed
    }

    fn attachment(&self) -> Option<Attachment> {
        self.world.attachments.get(&self.ifindex).copied()
    }

    fn egress(&self, slot: u32) -> Option<Egress> {
        // An array has a value at every place.
        Some(self.world.egress.get(&slot).copied().unwrap_or_default())
    }

    fn address(&self, key: &AddressKey) -> Option<Address> {
        self.world.addresses.get(key).copied()
    }

    fn port(&self, key: &PortKey) -> Option<Port> {
        self.world.ports.get(key).copied()
    }

    fn maglev(&self, index: u32) -> Option<u32> {
        Some(self.world.maglev.get(&index).copied().unwrap_or_default())
    }

    fn backend(&self, slot: u32) -> Option<Backend> {
        Some(self.world.backends.get(&slot).copied().unwrap_or_default())
    }

    fn nat_address(&self, index: u32) -> Option<NatAddress> {
        let found = self.world.nat_addresses.get(&index).copied();
        Some(found.unwrap_or_default())
    }

    fn link(&self, slot: u32) -> Option<Link> {
        Some(self.world.links.get(&slot).copied().unwrap_or_default())
    }

    fn flow_v4(&self, table: Table, key: &FlowKey<V4>) -> Option<FlowRef<V4>> {
        self.world.flows_v4.find(table, key)
    }

    fn insert_flow_v4(
        &mut self,
        table: Table,
        key: &FlowKey<V4>,
        flow: &Flow<V4>,
    ) -> Result<(), InsertError> {
        self.world.flows_v4.insert(table, key, flow)
    }

    fn remove_flow_v4(&mut self, table: Table, key: &FlowKey<V4>) {
        self.world.flows_v4.of_mut(table).remove(key);
    }

    fn flow_v6(&self, table: Table, key: &FlowKey<V6>) -> Option<FlowRef<V6>> {
        self.world.flows_v6.find(table, key)
    }

    fn insert_flow_v6(
        &mut self,
        table: Table,
        key: &FlowKey<V6>,
        flow: &Flow<V6>,
    ) -> Result<(), InsertError> {
        self.world.flows_v6.insert(table, key, flow)
    }

    fn remove_flow_v6(&mut self, table: Table, key: &FlowKey<V6>) {
        self.world.flows_v6.of_mut(table).remove(key);
    }

    fn count_drop(&mut self, reason: DropReason, link: u32) {
        *self.world.drops.entry(reason).or_default() += 1;
        if link != NO_LINK {
            let key = LinkDropKey {
                link,
                reason: reason as u32,
            };
            *self.world.link_drops.entry(key).or_default() += 1;
        }
    }

    fn count_crossing(&mut self, link: u32, direction: Direction, bytes: u16) {
        let counters = self.world.link_counters.entry(link).or_default();
        match direction {
            Direction::ToService => {
                counters.packets_to_service += 1;
                counters.bytes_to_service += u64::from(bytes);
            }
            Direction::ToConsumer => {
                counters.packets_to_consumer += 1;
                counters.bytes_to_consumer += u64::from(bytes);
            }
        }
    }

    fn count_flow(&mut self, link: u32) {
        self.world
            .link_counters
            .entry(link)
            .or_default()
            .flows_opened += 1;
    }

    fn count(&mut self, statistic: Statistic) {
        *self.world.statistics.entry(statistic).or_default() += 1;
    }
}
