//! The kernel's implementation of the data path's environment: helpers and maps.

use core::{arch::asm, ffi::c_void, ptr::NonNull};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_loop, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
        bpf_xdp_get_buff_len,
    },
};
use gateway_common::{
    DropReason, Family, Platform, V4, V6,
    checksum::Sum,
    flow::{CoarseTime, Direction, Flow, FlowKey, FlowRef, Table},
    maps::{
        AddressConflict, AddressKey, Attachment, Backend, Connection, ConnectionDropKey,
        ConnectionUsage, DatagramKey, Egress, FragmentRecord, IdentificationSpace,
        IdentificationState, Limits, LocalAddress, NO_CONNECTION, NatAddress, Port, PortKey,
        Statistic, attachment_index,
    },
    packet::Mac,
    pipeline::Subprogram,
    platform::{InsertError, LoopBody, MapValueRef, Scratch},
};

use crate::{
    context::Xdp,
    maps::{
        ADDRESSES, ATTACH_OVERFLOW, ATTACHMENTS, BACKENDS, CONFLICTS, CONN_COUNTERS, CONN_DROPS,
        CONN_USAGE, CONNECTIONS, CSUM_BUFFER, DROPS, EGRESS, FLOW_SCRATCH_V4, FLOW_SCRATCH_V6,
        FLOWS_V4, FLOWS_V6, FRAGMENTS_V4, FRAGMENTS_V6, HALF_OPEN_V4, HALF_OPEN_V6, HASH_SEED,
        IDENTIFICATIONS, LIMITS, MAGLEV, NAT_ADDRESSES, PORTS, REJECT_COST, SCRATCH, STATISTICS,
    },
    subprograms,
};

const EEXIST: i32 = -17;

/// What [`step`] works on.
struct LoopContext<'a, C> {
    platform: &'a mut Xdp,
    body: &'a mut C,
}

/// One step of [`Environment::repeat`], as the kernel calls it: 1 ends the loop.
///
/// # Safety
/// `both` points to a live value that nothing else refers to.
unsafe extern "C" fn run_iteration<C: LoopBody<Xdp>>(
    iteration: u64,
    context: *mut LoopContext<'_, C>,
) -> u64 {
    // SAFETY: the caller's promise.
    let context = unsafe { &mut *context };
    u64::from(context.body.iterate(context.platform, iteration as u32))
}

/// Adds one to a counter of this CPU.
#[inline(always)]
fn increment(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: a live element of a per-CPU map, written by this CPU alone: XDP is not preempted
        // by XDP.
        unsafe { *counter += 1 }
    }
}

/// A reference to what a look-up found.
#[inline(always)]
fn flow_ref<F: Family>(found: Option<*mut Flow<F>>) -> Option<FlowRef<F>> {
    // SAFETY: map memory stays mapped while the program runs. An evicted embryonic entry may
    // become another flow's meanwhile: at worst one packet of a flow that no longer exists is
    // rewritten by that flow's values, within the same checks of network and generation.
    found
        .and_then(NonNull::new)
        .map(|entry| unsafe { FlowRef::new(entry) })
}

/// A copy, field by field: only those that are used are loaded then, each by itself. So are those below.
#[inline(always)]
fn copy_attachment(found: &Attachment) -> Attachment {
    Attachment {
        ifindex: found.ifindex,
        network: found.network,
        slot: found.slot,
        flags: found.flags,
        mac: found.mac,
    }
}

/// Why an entry was not inserted.
#[inline(always)]
fn insert_error(result: Result<(), i32>) -> Result<(), InsertError> {
    result.map_err(|error| {
        if error == EEXIST {
            InsertError::Exists
        } else {
            InsertError::Full
        }
    })
}

impl Platform for Xdp {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn has_len(&self, length: usize) -> bool {
        // A frame of several buffers has its headers in the first, and is longer than that.
        self.data() + length <= self.data_end() || length <= self.frame_len()
    }

    #[inline(always)]
    fn packet_ptr(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let start = self.data() + offset;
        if start + length > self.data_end() {
            return None;
        }
        // SAFETY: packet memory is never at address 0.
        Some(unsafe { NonNull::new_unchecked(start as *mut u8) })
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> bool {
        let delta = length as i32 - self.frame_len() as i32;
        // SAFETY: the helper checks the length; windows taken before are not used again.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> bool {
        // SAFETY: the helper checks the room; windows taken before are not used again.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn partial_checksum(&mut self, offset: usize, length: usize) -> Option<Sum> {
        // SAFETY: the kernel's context.
        match unsafe { subprograms::partial_checksum(self.ctx.ctx, offset as u64, length as u64) } {
            subprograms::NO_CHECKSUM => None,
            partial => Some(Sum::from_partial(partial as u32)),
        }
    }

    #[inline(always)]
    fn call_subprogram(&mut self, subprogram: Subprogram, argument: u64) -> u64 {
        subprograms::call_subprogram(self.ctx.ctx, subprogram, argument)
    }

    #[inline(always)]
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C) {
        let mut loop_context = LoopContext {
            platform: self,
            body,
        };
        // SAFETY: the helper calls the function with the pointer that it is given, before it
        // returns.
        unsafe {
            bpf_loop(
                times,
                run_iteration::<C> as *const () as *mut c_void,
                (&raw mut loop_context).cast(),
                0,
            );
        }
    }

    #[inline(always)]
    fn parse_syn_options(&mut self, start: u16, length: u16) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { subprograms::parse_syn_options(self.ctx.ctx, start.into(), length.into()) as u32 }
    }

    #[inline(always)]
    fn allocate_identification(&self, space: IdentificationSpace, bucket: u32) -> u64 {
        subprograms::allocate_identification(space as u64, bucket.into())
    }

    #[inline(always)]
    fn forget_bounds(&mut self, value: u16) -> u16 {
        let Some(scratch) = CSUM_BUFFER.get_ptr_mut(0) else {
            return 0;
        };
        let scratch = scratch.cast::<u16>();
        // SAFETY: the buffer is this CPU's alone, aligned as map values are, and longer than this.
        // The verifier keeps no account of what is in a map's memory.
        unsafe {
            scratch.write_volatile(value);
            scratch.read_volatile()
        }
    }

    #[inline(always)]
    fn flow_scratch_v4(&mut self) -> Option<NonNull<Flow<V4>>> {
        FLOW_SCRATCH_V4.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn flow_scratch_v6(&mut self) -> Option<NonNull<Flow<V6>>> {
        FLOW_SCRATCH_V6.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn scratch(&mut self) -> Option<NonNull<Scratch>> {
        SCRATCH.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn now(&self) -> CoarseTime {
        // SAFETY: takes nothing, returns a number.
        CoarseTime::from_nanoseconds(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn now_nanoseconds(&self) -> u64 {
        // SAFETY: takes nothing, returns a number.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn reject_cost(&self) -> u64 {
        REJECT_COST.load()
    }

    #[inline(always)]
    fn hash_seed(&self) -> u64 {
        HASH_SEED.load()
    }

    #[inline(always)]
    fn attachment(&self) -> Option<Attachment> {
        let ifindex = self.ifindex();
        let direct = ATTACHMENTS.get(attachment_index(ifindex))?;
        if direct.ifindex == ifindex {
            return Some(copy_attachment(direct));
        }
        // SAFETY: made without preallocation, so an element outlives the program's run.
        unsafe { ATTACH_OVERFLOW.get(ifindex) }.map(copy_attachment)
    }

    #[inline(always)]
    fn egress(&self, slot: u32) -> Option<Egress> {
        let found = EGRESS.get(slot)?;
        Some(Egress {
            network: found.network,
            mtu: found.mtu,
            reserved: 0,
            mac: found.mac,
        })
    }

    #[inline(always)]
    fn local_address(&self, key: &AddressKey) -> Option<LocalAddress> {
        // SAFETY: made without preallocation, so an element outlives the program's run.
        unsafe { ADDRESSES.get(key).copied() }
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<MapValueRef<Port>> {
        // SAFETY: made without preallocation, so an element outlives the program's run, and what
        // replaces it is another one.
        unsafe {
            let port = PORTS.get(key)?;
            Some(MapValueRef::new(NonNull::from(port)))
        }
    }

    #[inline(always)]
    fn maglev(&self, index: u32) -> Option<u32> {
        MAGLEV.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, slot: u32) -> Option<Backend> {
        let found = BACKENDS.get(slot)?;
        Some(Backend {
            resource: found.resource,
            generation: found.generation,
            address: found.address,
            egress_slot: found.egress_slot,
            reachable: found.reachable,
            mac: found.mac,
        })
    }

    #[inline(always)]
    fn nat_address(&self, index: u32) -> Option<NatAddress> {
        NAT_ADDRESSES.get(index).copied()
    }

    #[inline(always)]
    fn connection(&self, slot: u32) -> Option<Connection> {
        let found = CONNECTIONS.get(slot)?;
        Some(Connection {
            id: found.id,
            generation: found.generation,
            has_limits: found.has_limits,
        })
    }

    #[inline(always)]
    fn limits(&self, slot: u32) -> Option<Limits> {
        LIMITS.get(slot).copied()
    }

    #[inline(always)]
    fn usage(&self, slot: u32) -> Option<NonNull<ConnectionUsage>> {
        CONN_USAGE.get_ptr_mut(slot).and_then(NonNull::new)
    }

    #[inline(always)]
    unsafe fn atomic_add(&self, number: NonNull<u64>, amount: u64) {
        // Rust's own atomics of this target have no addition. The instruction has been there since
        // the first kernels.
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "lock *(u64 *)({number} + 0) += {amount}",
                number = in(reg) number.as_ptr(),
                amount = in(reg) amount,
            );
        }
    }

    #[inline(always)]
    unsafe fn compare_exchange(&self, number: NonNull<u64>, current: u64, new: u64) -> u64 {
        let found;
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({number} + 0, r0, {new})",
                number = in(reg) number.as_ptr(),
                new = in(reg) new,
                inlateout("r0") current => found,
            );
        }
        found
    }

    #[inline(always)]
    fn identification_state(&self, bucket: u32) -> Option<NonNull<IdentificationState>> {
        IDENTIFICATIONS.get_ptr_mut(bucket).and_then(NonNull::new)
    }

    #[inline(always)]
    fn fragment_record_v4(&self, key: &DatagramKey<V4>) -> Option<FragmentRecord> {
        // SAFETY: copied at once; an entry that is evicted meanwhile is another datagram's ports,
        // with which the fragment finds no flow of its own.
        unsafe { FRAGMENTS_V4.get(key).copied() }
    }

    #[inline(always)]
    fn fragment_record_v6(&self, key: &DatagramKey<V6>) -> Option<FragmentRecord> {
        // SAFETY: as for IPv4.
        unsafe { FRAGMENTS_V6.get(key).copied() }
    }

    #[inline(always)]
    fn record_fragment_v4(&mut self, key: &DatagramKey<V4>, record: &FragmentRecord) {
        // A failure loses the rest of one datagram, which is counted as orphans.
        let _lost = FRAGMENTS_V4.insert(key, record, 0);
    }

    #[inline(always)]
    fn record_fragment_v6(&mut self, key: &DatagramKey<V6>, record: &FragmentRecord) {
        let _lost = FRAGMENTS_V6.insert(key, record, 0);
    }

    #[inline(always)]
    fn record_conflict(&mut self, key: &AddressKey, mac: Mac) {
        let conflict = AddressConflict {
            mac,
            last_seen: self.now().0,
            ..AddressConflict::default()
        };
        // The station will be heard again.
        let _lost = CONFLICTS.insert(key, conflict, 0);
    }

    #[inline(always)]
    fn lookup_flow_v4(&self, table: Table, key: &FlowKey<V4>) -> Option<FlowRef<V4>> {
        flow_ref(match table {
            Table::Established => FLOWS_V4.get_ptr_mut(key),
            Table::HalfOpen => HALF_OPEN_V4.get_ptr_mut(key),
        })
    }

    #[inline(always)]
    fn insert_flow_v4(
        &mut self,
        table: Table,
        key: &FlowKey<V4>,
        flow: &Flow<V4>,
    ) -> Result<(), InsertError> {
        let flags = u64::from(BPF_NOEXIST);
        insert_error(match table {
            Table::Established => FLOWS_V4.insert(key, flow, flags),
            Table::HalfOpen => HALF_OPEN_V4.insert(key, flow, flags),
        })
    }

    #[inline(always)]
    fn remove_flow_v4(&mut self, table: Table, key: &FlowKey<V4>) {
        // What is gone already was removed by somebody else, which is as good.
        let _already_gone = match table {
            Table::Established => FLOWS_V4.remove(key),
            Table::HalfOpen => HALF_OPEN_V4.remove(key),
        };
    }

    #[inline(always)]
    fn lookup_flow_v6(&self, table: Table, key: &FlowKey<V6>) -> Option<FlowRef<V6>> {
        flow_ref(match table {
            Table::Established => FLOWS_V6.get_ptr_mut(key),
            Table::HalfOpen => HALF_OPEN_V6.get_ptr_mut(key),
        })
    }

    #[inline(always)]
    fn insert_flow_v6(
        &mut self,
        table: Table,
        key: &FlowKey<V6>,
        flow: &Flow<V6>,
    ) -> Result<(), InsertError> {
        let flags = u64::from(BPF_NOEXIST);
        insert_error(match table {
            Table::Established => FLOWS_V6.insert(key, flow, flags),
            Table::HalfOpen => HALF_OPEN_V6.insert(key, flow, flags),
        })
    }

    #[inline(always)]
    fn remove_flow_v6(&mut self, table: Table, key: &FlowKey<V6>) {
        // What is gone already was removed by somebody else, which is as good.
        let _already_gone = match table {
            Table::Established => FLOWS_V6.remove(key),
            Table::HalfOpen => HALF_OPEN_V6.remove(key),
        };
    }

    #[inline(always)]
    fn count_drop(&mut self, reason: DropReason, connection_slot: u32) {
        increment(DROPS.get_ptr_mut(reason as u32));
        if connection_slot == NO_CONNECTION {
            return;
        }
        if reason == DropReason::ConnectionNotApproved {
            if let Some(counters) = CONN_COUNTERS.get_ptr_mut(connection_slot) {
                // SAFETY: as in `increment`.
                unsafe { (*counters).not_approved += 1 }
            }
            return;
        }
        let key = ConnectionDropKey {
            connection_slot,
            reason: reason as u32,
        };
        if let Some(counter) = CONN_DROPS.get_ptr_mut(key) {
            increment(Some(counter));
        } else {
            // A full table loses the endpoint's share; the reason's own counter has it.
            let _full = CONN_DROPS.insert(key, 1, 0);
        }
    }

    #[inline(always)]
    fn count_forwarded(&mut self, connection_slot: u32, direction: Direction, bytes: u16) {
        let Some(counters) = CONN_COUNTERS.get_ptr_mut(connection_slot) else {
            return;
        };
        // SAFETY: as in `increment`.
        unsafe {
            match direction {
                Direction::ToService => {
                    (*counters).packets_to_service += 1;
                    (*counters).bytes_to_service += u64::from(bytes);
                }
                Direction::ToConsumer => {
                    (*counters).packets_to_consumer += 1;
                    (*counters).bytes_to_consumer += u64::from(bytes);
                }
            }
        }
    }

    #[inline(always)]
    fn count_flow_opened(&mut self, connection_slot: u32) {
        if let Some(counters) = CONN_COUNTERS.get_ptr_mut(connection_slot) {
            // SAFETY: as in `increment`.
            unsafe { (*counters).flows_opened += 1 }
        }
    }

    #[inline(always)]
    fn count(&mut self, statistic: Statistic) {
        increment(STATISTICS.get_ptr_mut(statistic as u32));
    }
}
