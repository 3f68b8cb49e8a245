//! The platform of one packet: a simulation of the BPF helpers and maps.

use crate::{
    checksum::{self, Sum},
    drop_reason::{Attribution, DropReason},
    family::{V4, V6},
    flow::{
        BucketPtr, CoarseTime, DatagramKey, Direction, Flow, FlowCall, FlowKey, FlowTableUsage,
        FlowTables, FragmentRecord, PlacePtr,
        memory::{BoundedLoop, FlowMemory, LoopBody},
    },
    maps::{
        AddressConflict, AddressKey, Attachment, AttachmentDropKey, Backend, ConfigMaps,
        Connection, ConnectionDropKey, ConnectionUsage, Counters, Egress, IdentificationSpace,
        IdentificationState, Limits, LocalAddress, MapValueRef, NO_CONNECTION, NatAddress, Port,
        PortKey, RejectMeters, Statistic,
    },
    packet::{Mac, PacketBuffer},
    pipeline::{self, process},
    platform::{Platform, Scratch},
    sim::{maps::SimMaps, packet::FrameBuffer},
    subprogram::{Exit, Subprogram},
    verdict::Verdict,
};

use std::{cell::UnsafeCell, ptr::NonNull};

impl SimMaps {
    /// Processes one frame that arrived at the interface. Returns the verdict and the frame as it is afterwards.
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
    /// Runs one subprogram on a frame, as [`pipeline::run_subprogram`] does, and returns its exit.
    pub fn run_subprogram(
        &mut self,
        subprogram: Subprogram,
        argument: u64,
        ifindex: u32,
        frame: &[u8],
    ) -> Exit {
        let mut sim_packet = self.packet_for(ifindex, frame);
        pipeline::run_subprogram(&mut sim_packet, subprogram, argument)
    }
}

/// One packet, and the maps that it is processed with.
struct SimPacket<'a> {
    ifindex: u32,
    packet: FrameBuffer,
    maps: &'a mut SimMaps,
    scratch_v4: Box<UnsafeCell<Flow<V4>>>,
    scratch_v6: Box<UnsafeCell<Flow<V6>>>,
    scratch: Box<UnsafeCell<Scratch>>,
}

impl PacketBuffer for SimPacket<'_> {
    fn frame_len(&self) -> usize {
        self.maps.helper_calls.record("frame length");
        self.packet.length
    }

    fn has_len(&self, length: usize) -> bool {
        self.packet.length >= length
    }

    fn packet_ptr(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        let cells = self.packet.bytes[..self.packet.length].get(offset..end)?;
        NonNull::new(UnsafeCell::raw_get(cells.as_ptr()))
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
}

/// Implements the flow table of a family.
macro_rules! flow_tables {
    ($family:ty, $flows:ident, $fragments:ident, $scratch:ident, $number:literal) => {
        impl FlowMemory<$family> for SimPacket<'_> {
            type Bucket = BucketPtr<$family>;
            type Place = PlacePtr<$family>;

            fn bucket_count(&self) -> u32 {
                FlowMemory::<$family>::bucket_count(&self.maps.$flows)
            }

            fn bucket(&self, index: u32) -> Option<BucketPtr<$family>> {
                self.maps.helper_calls.record("bucket");
                self.maps.$flows.bucket(index)
            }

            fn place(bucket: BucketPtr<$family>, way: u32) -> PlacePtr<$family> {
                bucket.place(way)
            }

            fn hash(&self, key: &FlowKey<$family>) -> u64 {
                self.maps.$flows.hash(key)
            }
        }

        impl FlowTables<$family> for SimPacket<'_> {
            fn call(&mut self, call: FlowCall, arguments: [u64; 5]) -> u64 {
                self.maps.helper_calls.record("flow call");
                pipeline::run_flow_call::<$family, Self>(self, call, arguments)
            }

            fn flow_scratch(&mut self) -> Option<NonNull<Flow<$family>>> {
                self.maps.helper_calls.record("element");
                NonNull::new(self.$scratch.get())
            }

            fn flow_table_usage(&self) -> Option<NonNull<FlowTableUsage>> {
                self.maps.helper_calls.record("element");
                Some(self.maps.flow_table_usage.entry($number))
            }

            fn fragment_record(&self, key: &DatagramKey<$family>) -> Option<FragmentRecord> {
                self.maps.helper_calls.record("lookup");
                self.maps.$fragments.get(key).copied()
            }

            fn record_fragment(&mut self, key: &DatagramKey<$family>, record: &FragmentRecord) {
                self.maps.helper_calls.record("write");
                self.maps.$fragments.insert(*key, *record);
            }
        }
    };
}
flow_tables!(V4, flows_v4, fragment_records_v4, scratch_v4, 0);
flow_tables!(V6, flows_v6, fragment_records_v6, scratch_v6, 1);

impl BoundedLoop for SimPacket<'_> {
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C) {
        self.maps.helper_calls.record("bounded loop");
        for iteration in 0..times {
            if body.iterate(self, iteration) {
                break;
            }
        }
    }
}

impl ConfigMaps for SimPacket<'_> {
    fn attachment(&self) -> Option<Attachment> {
        self.maps.helper_calls.record("element");
        self.maps.attachments.get(&self.ifindex).copied()
    }

    fn egress(&self, slot: u32) -> Option<Egress> {
        self.maps.helper_calls.record("element");
        // An array map has a value at every index.
        Some(self.maps.egress.get(&slot).copied().unwrap_or_default())
    }

    fn local_address(&self, key: &AddressKey) -> Option<LocalAddress> {
        self.maps.helper_calls.record("lookup");
        self.maps.addresses.get(key).copied()
    }

    fn port(&self, key: &PortKey) -> Option<MapValueRef<Port>> {
        self.maps.helper_calls.record("lookup");
        let port = self.maps.ports.get(key)?;
        // SAFETY: nothing writes to the ports while a packet is processed.
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

    fn reject_cost(&self) -> u64 {
        self.maps.reject_cost
    }

    fn hash_seed(&self) -> u64 {
        self.maps.hash_seed
    }

    fn flow_table_size(&self) -> u64 {
        self.maps.flow_table_size
    }

    fn flow_table_share(&self) -> u64 {
        self.maps.flow_table_share
    }
}

impl Counters for SimPacket<'_> {
    fn count_drop(&mut self, attribution: Attribution) {
        let Attribution {
            reason,
            connection_slot,
        } = attribution;
        self.maps.helper_calls.record("counter");
        *self.maps.drops.entry(reason).or_default() += 1;
        self.maps.helper_calls.record("counter");
        let key = AttachmentDropKey {
            ifindex: self.ifindex,
            reason: reason as u32,
        };
        *self.maps.attachment_drops.entry(key).or_default() += 1;
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

impl Platform for SimPacket<'_> {
    fn call_subprogram(&mut self, subprogram: Subprogram, argument: u64) -> Exit {
        self.maps.helper_calls.record("subprogram");
        if self.maps.fast_path_disabled
            && matches!(subprogram, Subprogram::FastPathV4 | Subprogram::FastPathV6)
        {
            return Exit::SLOW_PATH;
        }
        pipeline::run_subprogram(self, subprogram, argument)
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

    fn scratch(&mut self) -> Option<NonNull<Scratch>> {
        self.maps.helper_calls.record("element");
        NonNull::new(self.scratch.get())
    }

    fn now(&self) -> CoarseTime {
        self.maps.helper_calls.record("clock");
        self.maps.now
    }

    fn cached_now(&self) -> CoarseTime {
        self.maps.helper_calls.record("element");
        self.maps.now
    }

    fn now_nanoseconds(&self) -> u64 {
        self.maps.helper_calls.record("clock");
        self.maps.now.nanoseconds() + self.maps.extra_nanoseconds
    }

    fn usage(&self, slot: u32) -> Option<NonNull<ConnectionUsage>> {
        self.maps.helper_calls.record("element");
        Some(self.maps.usage.entry(slot))
    }

    fn reject_meters(&self, index: u32) -> Option<NonNull<RejectMeters>> {
        self.maps.helper_calls.record("element");
        Some(self.maps.reject_meters.entry(index))
    }

    fn identification_state(&self, bucket: u32) -> Option<NonNull<IdentificationState>> {
        self.maps.helper_calls.record("element");
        Some(self.maps.identification_states.entry(bucket))
    }

    fn record_conflict(&mut self, key: &AddressKey, mac: Mac, is_probe: bool) {
        self.maps.helper_calls.record("write");
        let conflict = AddressConflict {
            mac,
            is_probe: is_probe.into(),
            last_seen: self.maps.now.0,
        };
        self.maps.conflicts.insert(*key, conflict);
    }

    unsafe fn atomic_add(&self, number: NonNull<u64>, amount: u64) {
        // SAFETY: the caller's promise; the simulation has one thread.
        unsafe { number.write(number.read().wrapping_add(amount)) }
    }

    unsafe fn compare_exchange(&self, number: NonNull<u64>, current: u64, new: u64) -> u64 {
        // SAFETY: the caller's promise; the simulation has one thread.
        unsafe {
            let found = number.read();
            if found == current {
                number.write(new);
            }
            found
        }
    }
}
