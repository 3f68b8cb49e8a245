//! The kernel's implementation of the data path's environment: helpers and maps.

use core::{arch::asm, ffi::c_void, ptr::NonNull};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_loop, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
        bpf_xdp_get_buff_len,
    },
    programs::XdpContext,
};
use gateway_common::{
    DropReason, Environment, Family, V4, V6,
    checksum::Sum,
    environment::{InsertError, Repeat, Shared, Workspace},
    flow::{Direction, Flow, FlowKey, FlowRef, Table, Tick},
    maps::{
        Address, AddressKey, Attachment, Backend, Conflict, DatagramKey, Egress, FragmentRecord,
        Identifications, Limits, Link, LinkDropKey, NO_LINK, NatAddress, Port, PortKey, Statistic,
        Usage, attachment_index,
    },
    packet::Mac,
    stages::{Part, Space},
};

use crate::{
    maps::{
        ADDRESSES, ATTACHMENT_OVER, ATTACHMENTS, BACKENDS, CONFLICTS, DROPS, EGRESS, EMBRYONIC_V4,
        EMBRYONIC_V6, FLOWS_V4, FLOWS_V6, FRAGMENTS_V4, FRAGMENTS_V6, HASH_SEED, IDENTIFICATIONS,
        LIMITS, LINK_COUNTERS, LINK_DROPS, LINKS, MAGLEV, NAT_ADDRESSES, PORTS, REFUSAL_COST,
        SCRATCH, SCRATCH_V4, SCRATCH_V6, STATISTICS, USAGE, WORKSPACE,
    },
    parts,
};

const EEXIST: i32 = -17;

/// One packet in XDP.
pub(crate) struct Xdp {
    ctx: XdpContext,
}

impl Xdp {
    #[inline(always)]
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }
}

impl Xdp {
    /// Where the frame's first buffer starts. Volatile: the kernel makes the field a pointer as it is
    /// loaded, and a copy of the field's 32 bits would be none.
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { (&raw const (*self.ctx.ctx).data).read_volatile() as usize }
    }

    /// Where it ends.
    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as for `data`.
        unsafe { (&raw const (*self.ctx.ctx).data_end).read_volatile() as usize }
    }
}

/// What [`step`] works on.
struct Both<'a, C> {
    env: &'a mut Xdp,
    context: &'a mut C,
}

/// One step of [`Environment::repeat`], as the kernel calls it: 1 ends the loop.
///
/// # Safety
/// `both` points to a live value that nothing else refers to.
unsafe extern "C" fn step<C: Repeat<Xdp>>(number: u64, both: *mut Both<'_, C>) -> u64 {
    // SAFETY: the caller's promise.
    let both = unsafe { &mut *both };
    u64::from(both.context.step(both.env, number as u32))
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
fn attachment(found: &Attachment) -> Attachment {
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
fn inserted(result: Result<(), i32>) -> Result<(), InsertError> {
    result.map_err(|error| {
        if error == EEXIST {
            InsertError::Exists
        } else {
            InsertError::Full
        }
    })
}

impl Environment for Xdp {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn packet_length(&self) -> usize {
        // SAFETY: the kernel's context lives as long as the program runs.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        // A frame of several buffers has its headers in the first, and is longer than that.
        self.data() + length <= self.data_end() || length <= self.packet_length()
    }

    #[inline(always)]
    fn packet(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let start = self.data() + offset;
        if start + length > self.data_end() {
            return None;
        }
        // SAFETY: packet memory is never at address 0.
        Some(unsafe { NonNull::new_unchecked(start as *mut u8) })
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> bool {
        let delta = length as i32 - self.packet_length() as i32;
        // SAFETY: the helper checks the length; windows taken before are not used again.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn shift(&mut self, bytes: i32) -> bool {
        // SAFETY: the helper checks the room; windows taken before are not used again.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, bytes) == 0 }
    }

    #[inline(always)]
    fn sum(&mut self, offset: usize, length: usize) -> Option<Sum> {
        // SAFETY: the kernel's context.
        match unsafe { parts::frame_sum(self.ctx.ctx, offset as u64, length as u64) } {
            parts::NO_SUM => None,
            partial => Some(Sum::from_partial(partial as u32)),
        }
    }

    #[inline(always)]
    fn part(&mut self, part: Part, argument: u64) -> u64 {
        parts::call(self.ctx.ctx, part, argument)
    }

    #[inline(always)]
    fn repeat<C: Repeat<Self>>(&mut self, times: u32, context: &mut C) {
        let mut both = Both { env: self, context };
        // SAFETY: the helper calls the function with the pointer that it is given, before it
        // returns.
        unsafe {
            bpf_loop(
                times,
                step::<C> as *const () as *mut c_void,
                (&raw mut both).cast(),
                0,
            );
        }
    }

    #[inline(always)]
    fn syn_options(&mut self, start: u16, length: u16) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { parts::syn_options(self.ctx.ctx, start.into(), length.into()) as u32 }
    }

    #[inline(always)]
    fn allocate(&self, space: Space, bucket: u32) -> u64 {
        parts::allocate(space as u64, bucket.into())
    }

    #[inline(always)]
    fn opaque(&mut self, value: u16) -> u16 {
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
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
    fn scratch_v4(&mut self) -> Option<NonNull<Flow<V4>>> {
        SCRATCH_V4.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn scratch_v6(&mut self) -> Option<NonNull<Flow<V6>>> {
        SCRATCH_V6.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn workspace(&mut self) -> Option<NonNull<Workspace>> {
        WORKSPACE.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn now(&self) -> Tick {
        // SAFETY: takes nothing, returns a number.
        Tick::from_nanoseconds(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: takes nothing, returns a number.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn refusal_cost(&self) -> u64 {
        REFUSAL_COST.load()
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        HASH_SEED.load()
    }

    #[inline(always)]
    fn attachment(&self) -> Option<Attachment> {
        let ifindex = self.ifindex();
        let direct = ATTACHMENTS.get(attachment_index(ifindex))?;
        if direct.ifindex == ifindex {
            return Some(attachment(direct));
        }
        // SAFETY: made without preallocation, so an element outlives the program's run.
        unsafe { ATTACHMENT_OVER.get(ifindex) }.map(attachment)
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
    fn address(&self, key: &AddressKey) -> Option<Address> {
        // SAFETY: made without preallocation, so an element outlives the program's run.
        unsafe { ADDRESSES.get(key).copied() }
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<Shared<Port>> {
        // SAFETY: made without preallocation, so an element outlives the program's run, and what
        // replaces it is another one.
        unsafe {
            let port = PORTS.get(key)?;
            Some(Shared::new(NonNull::from(port)))
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
            egress: found.egress,
            reachable: found.reachable,
            mac: found.mac,
        })
    }

    #[inline(always)]
    fn nat_address(&self, index: u32) -> Option<NatAddress> {
        NAT_ADDRESSES.get(index).copied()
    }

    #[inline(always)]
    fn link(&self, slot: u32) -> Option<Link> {
        let found = LINKS.get(slot)?;
        Some(Link {
            id: found.id,
            generation: found.generation,
            limited: found.limited,
        })
    }

    #[inline(always)]
    fn limits(&self, slot: u32) -> Option<Limits> {
        LIMITS.get(slot).copied()
    }

    #[inline(always)]
    fn usage(&self, slot: u32) -> Option<NonNull<Usage>> {
        USAGE.get_ptr_mut(slot).and_then(NonNull::new)
    }

    #[inline(always)]
    unsafe fn add(&self, number: NonNull<u64>, amount: u64) {
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
    fn identifications(&self, bucket: u32) -> Option<NonNull<Identifications>> {
        IDENTIFICATIONS.get_ptr_mut(bucket).and_then(NonNull::new)
    }

    #[inline(always)]
    fn fragments_v4(&self, key: &DatagramKey<V4>) -> Option<FragmentRecord> {
        // SAFETY: copied at once; an entry that is evicted meanwhile is another datagram's ports,
        // with which the fragment finds no flow of its own.
        unsafe { FRAGMENTS_V4.get(key).copied() }
    }

    #[inline(always)]
    fn fragments_v6(&self, key: &DatagramKey<V6>) -> Option<FragmentRecord> {
        // SAFETY: as for IPv4.
        unsafe { FRAGMENTS_V6.get(key).copied() }
    }

    #[inline(always)]
    fn note_fragments_v4(&mut self, key: &DatagramKey<V4>, ports: &FragmentRecord) {
        // A failure loses the rest of one datagram, which is counted as orphans.
        let _lost = FRAGMENTS_V4.insert(key, ports, 0);
    }

    #[inline(always)]
    fn note_fragments_v6(&mut self, key: &DatagramKey<V6>, ports: &FragmentRecord) {
        let _lost = FRAGMENTS_V6.insert(key, ports, 0);
    }

    #[inline(always)]
    fn note_conflict(&mut self, key: &AddressKey, station: Mac) {
        let conflict = Conflict {
            mac: station,
            seen: self.now().0,
            ..Conflict::default()
        };
        // The station will be heard again.
        let _lost = CONFLICTS.insert(key, conflict, 0);
    }

    #[inline(always)]
    fn flow_v4(&self, table: Table, key: &FlowKey<V4>) -> Option<FlowRef<V4>> {
        flow_ref(match table {
            Table::Established => FLOWS_V4.get_ptr_mut(key),
            Table::Embryonic => EMBRYONIC_V4.get_ptr_mut(key),
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
        inserted(match table {
            Table::Established => FLOWS_V4.insert(key, flow, flags),
            Table::Embryonic => EMBRYONIC_V4.insert(key, flow, flags),
        })
    }

    #[inline(always)]
    fn remove_flow_v4(&mut self, table: Table, key: &FlowKey<V4>) {
        // What is gone already was removed by somebody else, which is as good.
        let _already_gone = match table {
            Table::Established => FLOWS_V4.remove(key),
            Table::Embryonic => EMBRYONIC_V4.remove(key),
        };
    }

    #[inline(always)]
    fn flow_v6(&self, table: Table, key: &FlowKey<V6>) -> Option<FlowRef<V6>> {
        flow_ref(match table {
            Table::Established => FLOWS_V6.get_ptr_mut(key),
            Table::Embryonic => EMBRYONIC_V6.get_ptr_mut(key),
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
        inserted(match table {
            Table::Established => FLOWS_V6.insert(key, flow, flags),
            Table::Embryonic => EMBRYONIC_V6.insert(key, flow, flags),
        })
    }

    #[inline(always)]
    fn remove_flow_v6(&mut self, table: Table, key: &FlowKey<V6>) {
        // What is gone already was removed by somebody else, which is as good.
        let _already_gone = match table {
            Table::Established => FLOWS_V6.remove(key),
            Table::Embryonic => EMBRYONIC_V6.remove(key),
        };
    }

    #[inline(always)]
    fn count_drop(&mut self, reason: DropReason, link: u32) {
        increment(DROPS.get_ptr_mut(reason as u32));
        if link == NO_LINK {
            return;
        }
        if reason == DropReason::ConnectionNotApproved {
            if let Some(counters) = LINK_COUNTERS.get_ptr_mut(link) {
                // SAFETY: as in `increment`.
                unsafe { (*counters).not_approved += 1 }
            }
            return;
        }
        let key = LinkDropKey {
            link,
            reason: reason as u32,
        };
        if let Some(counter) = LINK_DROPS.get_ptr_mut(key) {
            increment(Some(counter));
        } else {
            // A full table loses the endpoint's share; the reason's own counter has it.
            let _full = LINK_DROPS.insert(key, 1, 0);
        }
    }

    #[inline(always)]
    fn count_crossing(&mut self, link: u32, direction: Direction, bytes: u16) {
        let Some(counters) = LINK_COUNTERS.get_ptr_mut(link) else {
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
    fn count_flow(&mut self, link: u32) {
        if let Some(counters) = LINK_COUNTERS.get_ptr_mut(link) {
            // SAFETY: as in `increment`.
            unsafe { (*counters).flows_opened += 1 }
        }
    }

    #[inline(always)]
    fn count(&mut self, statistic: Statistic) {
        increment(STATISTICS.get_ptr_mut(statistic as u32));
    }
}
