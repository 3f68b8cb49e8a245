//! The second implementation of the environment: maps in ordinary memory, a clock that is set, a
//! packet in a vector. Tests, `explain` and fuzzing run the stages in it.

use std::{
    cell::{RefCell, UnsafeCell},
    collections::{BTreeMap, HashMap},
    ptr::NonNull,
    rc::Rc,
};

use crate::{
    DropReason, Environment, Family, Turn, V4, V6, Verdict,
    checksum::{self, Sum},
    environment::{InsertError, Repeat, Shared, Workspace},
    flow::{Direction, Flow, FlowKey, FlowRef, Table, Tick},
    maps::{
        Address, AddressKey, Attachment, Backend, Conflict, DatagramKey, Egress, FragmentRecord,
        Identifications, Limits, Link, LinkCounters, LinkDropKey, NO_LINK, NatAddress, Port,
        PortKey, Statistic, Usage,
    },
    packet::Mac,
    process,
    stages::{self, Part, Space},
};

/// What was asked of the environment: what a packet costs beside the instructions of its way.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    counts: RefCell<BTreeMap<&'static str, u32>>,
}

impl Calls {
    fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    /// How often what was asked for since this was called last.
    #[must_use]
    pub fn take(&self) -> BTreeMap<&'static str, u32> {
        self.counts.take()
    }
}

/// One flow table.
#[derive(Debug)]
pub struct FlowTable<F: Family> {
    entries: HashMap<FlowKey<F>, Rc<UnsafeCell<Flow<F>>>>,
    /// Inserting beyond this many fails.
    pub capacity: usize,
}

impl<F: Family> Clone for FlowTable<F> {
    fn clone(&self) -> Self {
        let mut copy = Self {
            entries: HashMap::with_capacity(self.entries.len()),
            capacity: self.capacity,
        };
        for (key, flow) in self.entries() {
            copy.set(key, flow);
        }
        copy
    }
}

impl<F: Family> FlowTable<F> {
    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

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
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct World {
    /// By interface index.
    pub attachments: HashMap<u32, Attachment>,
    /// By attachment slot.
    pub egress: HashMap<u32, Egress>,
    /// Addresses that are answered for.
    pub addresses: HashMap<AddressKey, Address>,
    /// FragmentRecord that resources offer.
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
    /// What connections may use, by link slot.
    pub limits: HashMap<u32, Limits>,
    /// What they use.
    pub usage: SharedTable<Usage>,
    /// Datagrams of IPv4 that came in fragments.
    pub fragments_v4: HashMap<DatagramKey<V4>, FragmentRecord>,
    /// The same of IPv6.
    pub fragments_v6: HashMap<DatagramKey<V6>, FragmentRecord>,
    /// Allocation state of identifications, by bucket.
    pub identifications: SharedTable<Identifications>,
    /// Stations that use an address of ours.
    pub conflicts: HashMap<AddressKey, Conflict>,
    /// What the environment was asked for.
    pub calls: Calls,
    /// The time.
    pub now: Tick,
    /// The kernel's helpers fail: no packet's length is changed, nothing is summed up.
    pub helpers_fail: bool,
    /// Every packet goes the general way.
    pub express_closed: bool,
    /// What is added to it, in nanoseconds, for the meters.
    pub nanoseconds: u64,
    /// What a refusal costs, in nanoseconds; 0 is no limit.
    pub refusal_cost: u64,
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
            limits: HashMap::new(),
            usage: SharedTable::default(),
            identifications: SharedTable::default(),
            calls: Calls::default(),
            fragments_v4: HashMap::new(),
            fragments_v6: HashMap::new(),
            conflicts: HashMap::new(),
            now: Tick(1),
            helpers_fail: false,
            express_closed: false,
            nanoseconds: 0,
            refusal_cost: 0,
            seed: 0,
            drops: HashMap::new(),
            link_drops: HashMap::new(),
            link_counters: HashMap::new(),
            statistics: HashMap::new(),
        }
    }
}

/// Values that the data path writes through shared references, atomically, by their place.
#[derive(Debug)]
pub struct SharedTable<T>(RefCell<BTreeMap<u32, Box<UnsafeCell<T>>>>);

impl<T> Default for SharedTable<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Copy + Default> Clone for SharedTable<T> {
    fn clone(&self) -> Self {
        let copy = Self::default();
        for place in self.places() {
            copy.set(place, self.get(place));
        }
        copy
    }
}

impl<T: Copy + Default> SharedTable<T> {
    /// The places that were read or written, in their order.
    #[must_use]
    pub fn places(&self) -> Vec<u32> {
        self.0.borrow().keys().copied().collect()
    }

    /// The value at a place.
    #[must_use]
    pub fn get(&self, place: u32) -> T {
        // SAFETY: nothing else runs while this copies: the table stays in one thread.
        unsafe { self.entry(place).read() }
    }

    /// Replaces it.
    pub fn set(&self, place: u32, value: T) {
        // SAFETY: as for `get`.
        unsafe { self.entry(place).write(value) }
    }

    /// A pointer to the value, which stays where it is.
    fn entry(&self, place: u32) -> NonNull<T> {
        let mut entries = self.0.borrow_mut();
        let cell = entries.entry(place).or_default();
        // SAFETY: the address of a cell is not null.
        unsafe { NonNull::new_unchecked(cell.get()) }
    }
}

impl World {
    /// Processes one frame that arrived at the interface, and returns the verdict and the frame as
    /// it is afterwards.
    pub fn process(&mut self, ifindex: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut run = self.run(ifindex, frame);
        let verdict = process(&mut run);
        let packet = run.packet.bytes().to_vec();
        (verdict, packet)
    }

    fn run(&mut self, ifindex: u32, frame: &[u8]) -> Run<'_> {
        Run {
            ifindex,
            packet: Packet::new(frame),
            world: self,
            scratch_v4: Box::default(),
            scratch_v6: Box::default(),
            workspace: Box::default(),
        }
    }
}

impl World {
    /// Runs one part of a frame's way, as [`stages::run`] does, and returns its turn.
    pub fn part(&mut self, part: Part, before: Turn, ifindex: u32, frame: &[u8]) -> Turn {
        let mut run = self.run(ifindex, frame);
        Turn::from_bits(stages::run(&mut run, part, before.to_bits()))
    }
}

/// What the kernel leaves of a frame at the least: an Ethernet header.
const SHORTEST: usize = 14;

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

    /// Moves the beginning, as [`Environment::shift`] says.
    fn shift(&mut self, by: i32) -> bool {
        let Ok(distance) = usize::try_from(by.unsigned_abs()) else {
            return false;
        };
        let mut bytes = self.bytes().to_vec();
        if by < 0 {
            bytes.splice(0..0, vec![0; distance]);
        } else if bytes.len() >= distance + SHORTEST {
            bytes.drain(..distance);
        } else {
            return false;
        }
        *self = Self::new(&bytes);
        true
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
    workspace: Box<UnsafeCell<Workspace>>,
}

impl Environment for Run<'_> {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn packet_length(&self) -> usize {
        self.world.calls.count("frame length");
        self.packet.length
    }

    fn packet(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        let cells = self.packet.bytes[..self.packet.length].get(offset..end)?;
        NonNull::new(UnsafeCell::raw_get(cells.as_ptr()))
    }

    fn holds(&self, length: usize) -> bool {
        self.packet.length >= length
    }

    fn resize(&mut self, length: usize) -> bool {
        self.world.calls.count("frame resized");
        if self.world.helpers_fail {
            return false;
        }
        self.packet.resize(length);
        true
    }

    fn shift(&mut self, bytes: i32) -> bool {
        self.world.calls.count("frame shifted");
        !self.world.helpers_fail && self.packet.shift(bytes)
    }

    fn sum(&mut self, offset: usize, length: usize) -> Option<Sum> {
        self.world.calls.count("sum");
        let end = offset.checked_add(length)?;
        if self.world.helpers_fail {
            return None;
        }
        self.packet
            .bytes()
            .get(offset..end)
            .map(checksum::sum_bytes)
    }

    fn part(&mut self, part: Part, argument: u64) -> u64 {
        self.world.calls.count("part");
        if self.world.express_closed && matches!(part, Part::ExpressV4 | Part::ExpressV6) {
            return Turn::WAY.to_bits();
        }
        stages::run(self, part, argument)
    }

    fn repeat<C: Repeat<Self>>(&mut self, times: u32, context: &mut C) {
        self.world.calls.count("loop");
        for number in 0..times {
            if context.step(self, number) {
                break;
            }
        }
    }

    fn syn_options(&mut self, start: u16, length: u16) -> u32 {
        self.world.calls.count("SYN options");
        stages::syn_options(self, start, length)
    }

    fn allocate(&self, space: Space, bucket: u32) -> u64 {
        self.world.calls.count("allocation");
        stages::allocate(self, space, bucket)
    }

    fn opaque(&mut self, value: u16) -> u16 {
        self.world.calls.count("element");
        value
    }

    fn scratch_v4(&mut self) -> Option<NonNull<Flow<V4>>> {
        self.world.calls.count("element");
        NonNull::new(self.scratch_v4.get())
    }

    fn scratch_v6(&mut self) -> Option<NonNull<Flow<V6>>> {
        self.world.calls.count("element");
        NonNull::new(self.scratch_v6.get())
    }

    fn workspace(&mut self) -> Option<NonNull<Workspace>> {
        self.world.calls.count("element");
        NonNull::new(self.workspace.get())
    }

    fn now(&self) -> Tick {
        self.world.calls.count("clock");
        self.world.now
    }

    fn nanoseconds(&self) -> u64 {
        self.world.calls.count("clock");
        self.world.now.nanoseconds() + self.world.nanoseconds
    }

    fn refusal_cost(&self) -> u64 {
        self.world.refusal_cost
    }

    fn seed(&self) -> u64 {
        self.world.seed
    }

    fn attachment(&self) -> Option<Attachment> {
        self.world.calls.count("element");
        self.world.attachments.get(&self.ifindex).copied()
    }

    fn egress(&self, slot: u32) -> Option<Egress> {
        self.world.calls.count("element");
        // An array has a value at every place.
        Some(self.world.egress.get(&slot).copied().unwrap_or_default())
    }

    fn address(&self, key: &AddressKey) -> Option<Address> {
        self.world.calls.count("lookup");
        self.world.addresses.get(key).copied()
    }

    fn port(&self, key: &PortKey) -> Option<Shared<Port>> {
        self.world.calls.count("lookup");
        let port = self.world.ports.get(key)?;
        // SAFETY: nothing writes to the ports while a packet is on its way.
        Some(unsafe { Shared::new(NonNull::from(port)) })
    }

    fn maglev(&self, index: u32) -> Option<u32> {
        self.world.calls.count("element");
        Some(self.world.maglev.get(&index).copied().unwrap_or_default())
    }

    fn backend(&self, slot: u32) -> Option<Backend> {
        self.world.calls.count("element");
        Some(self.world.backends.get(&slot).copied().unwrap_or_default())
    }

    fn nat_address(&self, index: u32) -> Option<NatAddress> {
        self.world.calls.count("element");
        let found = self.world.nat_addresses.get(&index).copied();
        Some(found.unwrap_or_default())
    }

    fn link(&self, slot: u32) -> Option<Link> {
        self.world.calls.count("element");
        Some(self.world.links.get(&slot).copied().unwrap_or_default())
    }

    fn limits(&self, slot: u32) -> Option<Limits> {
        self.world.calls.count("element");
        Some(self.world.limits.get(&slot).copied().unwrap_or_default())
    }

    fn usage(&self, slot: u32) -> Option<NonNull<Usage>> {
        self.world.calls.count("element");
        Some(self.world.usage.entry(slot))
    }

    unsafe fn add(&self, number: NonNull<u64>, amount: u64) {
        // SAFETY: the caller's promise; this world has one thread.
        unsafe { number.write(number.read().wrapping_add(amount)) }
    }

    unsafe fn compare_exchange(&self, number: NonNull<u64>, current: u64, new: u64) -> u64 {
        // SAFETY: the caller's promise; this world has one thread.
        unsafe {
            let found = number.read();
            if found == current {
                number.write(new);
            }
            found
        }
    }

    fn identifications(&self, bucket: u32) -> Option<NonNull<Identifications>> {
        self.world.calls.count("element");
        Some(self.world.identifications.entry(bucket))
    }

    fn fragments_v4(&self, key: &DatagramKey<V4>) -> Option<FragmentRecord> {
        self.world.calls.count("lookup");
        self.world.fragments_v4.get(key).copied()
    }

    fn fragments_v6(&self, key: &DatagramKey<V6>) -> Option<FragmentRecord> {
        self.world.calls.count("lookup");
        self.world.fragments_v6.get(key).copied()
    }

    fn note_fragments_v4(&mut self, key: &DatagramKey<V4>, ports: &FragmentRecord) {
        self.world.calls.count("write");
        self.world.fragments_v4.insert(*key, *ports);
    }

    fn note_fragments_v6(&mut self, key: &DatagramKey<V6>, ports: &FragmentRecord) {
        self.world.calls.count("write");
        self.world.fragments_v6.insert(*key, *ports);
    }

    fn note_conflict(&mut self, key: &AddressKey, station: Mac) {
        self.world.calls.count("write");
        let conflict = Conflict {
            mac: station,
            seen: self.world.now.0,
            ..Conflict::default()
        };
        self.world.conflicts.insert(*key, conflict);
    }

    fn flow_v4(&self, table: Table, key: &FlowKey<V4>) -> Option<FlowRef<V4>> {
        self.world.calls.count("lookup");
        self.world.flows_v4.find(table, key)
    }

    fn insert_flow_v4(
        &mut self,
        table: Table,
        key: &FlowKey<V4>,
        flow: &Flow<V4>,
    ) -> Result<(), InsertError> {
        self.world.calls.count("write");
        self.world.flows_v4.insert(table, key, flow)
    }

    fn remove_flow_v4(&mut self, table: Table, key: &FlowKey<V4>) {
        self.world.calls.count("write");
        self.world.flows_v4.of_mut(table).remove(key);
    }

    fn flow_v6(&self, table: Table, key: &FlowKey<V6>) -> Option<FlowRef<V6>> {
        self.world.calls.count("lookup");
        self.world.flows_v6.find(table, key)
    }

    fn insert_flow_v6(
        &mut self,
        table: Table,
        key: &FlowKey<V6>,
        flow: &Flow<V6>,
    ) -> Result<(), InsertError> {
        self.world.calls.count("write");
        self.world.flows_v6.insert(table, key, flow)
    }

    fn remove_flow_v6(&mut self, table: Table, key: &FlowKey<V6>) {
        self.world.calls.count("write");
        self.world.flows_v6.of_mut(table).remove(key);
    }

    fn count_drop(&mut self, reason: DropReason, link: u32) {
        self.world.calls.count("counter");
        *self.world.drops.entry(reason).or_default() += 1;
        if reason == DropReason::ConnectionNotApproved {
            let counters = self.world.link_counters.entry(link).or_default();
            counters.not_approved += 1;
        } else if link != NO_LINK {
            let key = LinkDropKey {
                link,
                reason: reason as u32,
            };
            *self.world.link_drops.entry(key).or_default() += 1;
        }
    }

    fn count_crossing(&mut self, link: u32, direction: Direction, bytes: u16) {
        self.world.calls.count("counter");
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
        self.world.calls.count("counter");
        self.world
            .link_counters
            .entry(link)
            .or_default()
            .flows_opened += 1;
    }

    fn count(&mut self, statistic: Statistic) {
        self.world.calls.count("counter");
        *self.world.statistics.entry(statistic).or_default() += 1;
    }
}
