//! The platform of one packet: the simulation of BPF helpers and maps.

use crate::{
    checksum::{self, Sum},
    drop_reason::DropReason,
    family::{V4, V6},
    flow::{CoarseTime, Direction, Flow, FlowKey, FlowRef, Table},
    maps::{
        AddressConflict, AddressKey, Attachment, Backend, Connection, ConnectionDropKey,
        ConnectionUsage, DatagramKey, Egress, FragmentRecord, IdentificationSpace,
        IdentificationState, Limits, LocalAddress, NO_CONNECTION, NatAddress, Port, PortKey,
        Statistic,
    },
    packet::Mac,
    pipeline::{self, Subprogram, process},
    platform::{InsertError, LoopBody, MapValueRef, Platform, Scratch},
    sim::{SimMaps, packet::FrameBuffer},
    verdict::{Exit, Verdict},
};

use std::{cell::UnsafeCell, ptr::NonNull};

impl SimMaps {
    /// Processes one frame that arrived at the interface, and returns the verdict and the frame as
    /// it is afterwards.
    pub fn process(&mut self, ifindex: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut sim_packet = self.packet_for(ifindex, frame);
        let verdict = process(&mut sim_packet);
        let packet = sim_packet.packet.bytes().to_vec();
        (verdict, packet)
    }

    fn packet_for(&mut self, ifindex: u32, frame: &[u8]) -> SimPacket<'_> {
        SimPacket {
            ifindex,
            packet: FrameBuffer::new(frame),
            maps: self,
            scratch_v4: Box::default(),
            scratch_v6: Box::default(),
            scratch: Box::default(),
        }
    }
}

impl SimMaps {
    /// Runs one part of a frame's way, as [`pipeline::run`] does, and returns its turn.
    pub fn run_subprogram(
        &mut self,
        subprogram: Subprogram,
        previous_exit: Exit,
        ifindex: u32,
        frame: &[u8],
    ) -> Exit {
        let mut sim_packet = self.packet_for(ifindex, frame);
        Exit::from_bits(pipeline::run_subprogram(
            &mut sim_packet,
            subprogram,
            previous_exit.to_bits(),
        ))
    }
}

/// One packet's run.
struct SimPacket<'a> {
    ifindex: u32,
    packet: FrameBuffer,
    maps: &'a mut SimMaps,
    scratch_v4: Box<UnsafeCell<Flow<V4>>>,
    scratch_v6: Box<UnsafeCell<Flow<V6>>>,
    scratch: Box<UnsafeCell<Scratch>>,
}

impl Platform for SimPacket<'_> {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn frame_len(&self) -> usize {
        self.maps.helper_calls.record("frame length");
        self.packet.length
    }

    fn packet_ptr(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        let cells = self.packet.bytes[..self.packet.length].get(offset..end)?;
        NonNull::new(UnsafeCell::raw_get(cells.as_ptr()))
    }

    fn has_len(&self, length: usize) -> bool {
        self.packet.length >= length
    }

    fn resize(&mut self, length: usize) -> bool {
        self.maps.helper_calls.record("resize");
        if self.maps.helpers_fail {
            return false;
        }
        self.packet.resize(length);
        true
    }

    fn adjust_head(&mut self, delta: i32) -> bool {
        self.maps.helper_calls.record("adjust_head");
        !self.maps.helpers_fail && self.packet.adjust_head(delta)
    }

    fn partial_checksum(&mut self, offset: usize, length: usize) -> Option<Sum> {
        self.maps.helper_calls.record("partial checksum");
        let end = offset.checked_add(length)?;
        if self.maps.helpers_fail {
            return None;
        }
        self.packet
            .bytes()
            .get(offset..end)
            .map(checksum::sum_bytes)
    }

    fn call_subprogram(&mut self, subprogram: Subprogram, argument: u64) -> u64 {
        self.maps.helper_calls.record("subprogram");
        if self.maps.fast_path_disabled
            && matches!(subprogram, Subprogram::FastPathV4 | Subprogram::FastPathV6)
        {
            return Exit::SLOW_PATH.to_bits();
        }
        pipeline::run_subprogram(self, subprogram, argument)
    }

    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C) {
        self.maps.helper_calls.record("bounded loop");
        for iteration in 0..times {
            if body.iterate(self, iteration) {
                break;
            }
        }
    }

    fn parse_syn_options(&mut self, start: u16, length: u16) -> u32 {
        self.maps.helper_calls.record("SYN options");
        pipeline::parse_syn_options(self, start, length)
    }

    fn allocate_identification(&self, space: IdentificationSpace, bucket: u32) -> u64 {
        self.maps.helper_calls.record("identification");
        pipeline::allocate_identification(self, space, bucket)
    }

    fn forget_bounds(&mut self, value: u16) -> u16 {
        self.maps.helper_calls.record("element");
        value
    }

    fn flow_scratch_v4(&mut self) -> Option<NonNull<Flow<V4>>> {
        self.maps.helper_calls.record("element");
        NonNull::new(self.scratch_v4.get())
    }

    fn flow_scratch_v6(&mut self) -> Option<NonNull<Flow<V6>>> {
        self.maps.helper_calls.record("element");
        NonNull::new(self.scratch_v6.get())
    }

    fn scratch(&mut self) -> Option<NonNull<Scratch>> {
        self.maps.helper_calls.record("element");
        NonNull::new(self.scratch.get())
    }

    fn now(&self) -> CoarseTime {
        self.maps.helper_calls.record("clock");
        self.maps.now
    }

    fn now_nanoseconds(&self) -> u64 {
        self.maps.helper_calls.record("clock");
        self.maps.now.nanoseconds() + self.maps.extra_nanoseconds
    }

    fn reject_cost(&self) -> u64 {
        self.maps.reject_cost
    }

    fn hash_seed(&self) -> u64 {
        self.maps.hash_seed
    }

    fn attachment(&self) -> Option<Attachment> {
        self.maps.helper_calls.record("element");
        self.maps.attachments.get(&self.ifindex).copied()
    }

    fn egress(&self, slot: u32) -> Option<Egress> {
        self.maps.helper_calls.record("element");
        // An array has a value at every place.
        Some(self.maps.egress.get(&slot).copied().unwrap_or_default())
    }

    fn local_address(&self, key: &AddressKey) -> Option<LocalAddress> {
        self.maps.helper_calls.record("lookup");
        self.maps.addresses.get(key).copied()
    }

    fn port(&self, key: &PortKey) -> Option<MapValueRef<Port>> {
        self.maps.helper_calls.record("lookup");
        let port = self.maps.ports.get(key)?;
        // SAFETY: nothing writes to the ports while a packet is on its way.
        Some(unsafe { MapValueRef::new(NonNull::from(port)) })
    }

    fn maglev(&self, index: u32) -> Option<u32> {
        self.maps.helper_calls.record("element");
        Some(self.maps.maglev.get(&index).copied().unwrap_or_default())
    }

    fn backend(&self, slot: u32) -> Option<Backend> {
        self.maps.helper_calls.record("element");
        Some(self.maps.backends.get(&slot).copied().unwrap_or_default())
    }

    fn nat_address(&self, index: u32) -> Option<NatAddress> {
        self.maps.helper_calls.record("element");
        let found = self.maps.nat_addresses.get(&index).copied();
        Some(found.unwrap_or_default())
    }

    fn connection(&self, slot: u32) -> Option<Connection> {
        self.maps.helper_calls.record("element");
        Some(
            self.maps
                .connections
                .get(&slot)
                .copied()
                .unwrap_or_default(),
        )
    }

    fn limits(&self, slot: u32) -> Option<Limits> {
        self.maps.helper_calls.record("element");
        Some(self.maps.limits.get(&slot).copied().unwrap_or_default())
    }

    fn usage(&self, slot: u32) -> Option<NonNull<ConnectionUsage>> {
        self.maps.helper_calls.record("element");
        Some(self.maps.usage.entry(slot))
    }

    unsafe fn atomic_add(&self, number: NonNull<u64>, amount: u64) {
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

    fn identification_state(&self, bucket: u32) -> Option<NonNull<IdentificationState>> {
        self.maps.helper_calls.record("element");
        Some(self.maps.identification_states.entry(bucket))
    }

    fn fragment_record_v4(&self, key: &DatagramKey<V4>) -> Option<FragmentRecord> {
        self.maps.helper_calls.record("lookup");
        self.maps.fragment_records_v4.get(key).copied()
    }

    fn fragment_record_v6(&self, key: &DatagramKey<V6>) -> Option<FragmentRecord> {
        self.maps.helper_calls.record("lookup");
        self.maps.fragment_records_v6.get(key).copied()
    }

    fn record_fragment_v4(&mut self, key: &DatagramKey<V4>, record: &FragmentRecord) {
        self.maps.helper_calls.record("write");
        self.maps.fragment_records_v4.insert(*key, *record);
    }

    fn record_fragment_v6(&mut self, key: &DatagramKey<V6>, record: &FragmentRecord) {
        self.maps.helper_calls.record("write");
        self.maps.fragment_records_v6.insert(*key, *record);
    }

    fn record_conflict(&mut self, key: &AddressKey, mac: Mac) {
        self.maps.helper_calls.record("write");
        let conflict = AddressConflict {
            mac,
            last_seen: self.maps.now.0,
            ..AddressConflict::default()
        };
        self.maps.conflicts.insert(*key, conflict);
    }

    fn lookup_flow_v4(&self, table: Table, key: &FlowKey<V4>) -> Option<FlowRef<V4>> {
        self.maps.helper_calls.record("lookup");
        self.maps.flows_v4.lookup(table, key)
    }

    fn insert_flow_v4(
        &mut self,
        table: Table,
        key: &FlowKey<V4>,
        flow: &Flow<V4>,
    ) -> Result<(), InsertError> {
        self.maps.helper_calls.record("write");
        self.maps.flows_v4.insert(table, key, flow)
    }

    fn remove_flow_v4(&mut self, table: Table, key: &FlowKey<V4>) {
        self.maps.helper_calls.record("write");
        self.maps.flows_v4.table_mut(table).remove(key);
    }

    fn lookup_flow_v6(&self, table: Table, key: &FlowKey<V6>) -> Option<FlowRef<V6>> {
        self.maps.helper_calls.record("lookup");
        self.maps.flows_v6.lookup(table, key)
    }

    fn insert_flow_v6(
        &mut self,
        table: Table,
        key: &FlowKey<V6>,
        flow: &Flow<V6>,
    ) -> Result<(), InsertError> {
        self.maps.helper_calls.record("write");
        self.maps.flows_v6.insert(table, key, flow)
    }

    fn remove_flow_v6(&mut self, table: Table, key: &FlowKey<V6>) {
        self.maps.helper_calls.record("write");
        self.maps.flows_v6.table_mut(table).remove(key);
    }

    fn count_drop(&mut self, reason: DropReason, connection_slot: u32) {
        self.maps.helper_calls.record("counter");
        *self.maps.drops.entry(reason).or_default() += 1;
        if reason == DropReason::ConnectionNotApproved {
            let counters = self
                .maps
                .connection_counters
                .entry(connection_slot)
                .or_default();
            counters.not_approved += 1;
        } else if connection_slot != NO_CONNECTION {
            let key = ConnectionDropKey {
                connection_slot,
                reason: reason as u32,
            };
            *self.maps.connection_drops.entry(key).or_default() += 1;
        }
    }

    fn count_forwarded(&mut self, connection_slot: u32, direction: Direction, bytes: u16) {
        self.maps.helper_calls.record("counter");
        let counters = self
            .maps
            .connection_counters
            .entry(connection_slot)
            .or_default();
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

    fn count_flow_opened(&mut self, connection_slot: u32) {
        self.maps.helper_calls.record("counter");
        self.maps
            .connection_counters
            .entry(connection_slot)
            .or_default()
            .flows_opened += 1;
    }

    fn count(&mut self, statistic: Statistic) {
        self.maps.helper_calls.record("counter");
        *self.maps.statistics.entry(statistic).or_default() += 1;
    }
}
