//! The kernel's implementation of the data path's environment: helpers and maps.

use core::{
    hint::black_box,
    ptr::{self, NonNull},
};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{
        bpf_csum_diff, bpf_ktime_get_coarse_ns, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use gateway_common::{
    DropReason, Environment, Family, V4, V6,
    checksum::Sum,
    environment::InsertError,
    flow::{Direction, Flow, FlowKey, FlowRef, Table, Tick},
    maps::{
        Address, AddressKey, Attachment, Backend, Egress, Link, LinkDropKey, NO_LINK, NatAddress,
        Port, PortKey, Statistic, attachment_index,
    },
};

use crate::maps::{
    ADDRESSES, ATTACHMENT_OVER, ATTACHMENTS, BACKENDS, CHUNK, DROPS, EGRESS, EMBRYONIC_V4,
    EMBRYONIC_V6, FLOWS_V4, FLOWS_V6, HASH_SEED, LINK_COUNTERS, LINK_DROPS, LINKS, MAGLEV,
    NAT_ADDRESSES, PORTS, SCRATCH, SCRATCH_V4, SCRATCH_V6, STATISTICS,
};

/// How many chunks are summed at most: 4 KiB, beyond what XDP gets in one buffer.
const CHUNKS: usize = 8;

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

    /// The context, for logging.
    #[inline(always)]
    pub(crate) fn context(&self) -> &XdpContext {
        &self.ctx
    }
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
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn packet(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let start = self.ctx.data() + offset;
        if start + length > self.ctx.data_end() {
            return None;
        }
        NonNull::new(start as *mut u8)
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> bool {
        let delta = length as i32 - self.packet_length() as i32;
        // SAFETY: the helper checks the length; windows taken before are not used again.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn sum(&mut self, offset: usize, length: usize) -> Option<Sum> {
        let scratch = SCRATCH.get_ptr_mut(0)?.cast::<u8>();
        let mut sum = 0u32;
        let mut done = 0;
        for _ in 0..CHUNKS {
            if done == length {
                return Some(Sum::from_partial(sum));
            }
            // The compiler must not see through this: the verifier needs the bounds checked on the
            // very value that the helper gets.
            let taken = black_box((length - done).min(CHUNK));
            if taken == 0 || taken > CHUNK {
                return None;
            }
            let padded = (taken + 3) & !3;
            let at = (offset + done) as u32;
            // SAFETY: `taken` is at most `CHUNK` and the scratch buffer is four bytes longer; the
            // helpers check the packet's bounds. The buffer is this CPU's alone.
            let result = unsafe {
                if bpf_xdp_load_bytes(self.ctx.ctx, at, scratch.cast(), taken as u32) != 0 {
                    return None;
                }
                scratch.add(taken).cast::<[u8; 4]>().write_unaligned([0; 4]);
                bpf_csum_diff(ptr::null_mut(), 0, scratch.cast(), padded as u32, sum)
            };
            if result < 0 {
                return None;
            }
            sum = result as u32;
            done += taken;
        }
        (done == length).then_some(Sum::from_partial(sum))
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
    fn now(&self) -> Tick {
        // SAFETY: takes nothing, returns a number.
        Tick::from_nanoseconds(unsafe { bpf_ktime_get_coarse_ns() })
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
            return Some(*direct);
        }
        // SAFETY: made without preallocation, so an element outlives the program's run.
        unsafe { ATTACHMENT_OVER.get(ifindex).copied() }
    }

    #[inline(always)]
    fn egress(&self, slot: u32) -> Option<Egress> {
        EGRESS.get(slot).copied()
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<Address> {
        // SAFETY: made without preallocation, so an element outlives the program's run.
        unsafe { ADDRESSES.get(key).copied() }
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<Port> {
        // SAFETY: made without preallocation, so an element outlives the program's run.
        unsafe { PORTS.get(key).copied() }
    }

    #[inline(always)]
    fn maglev(&self, index: u32) -> Option<u32> {
        MAGLEV.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, slot: u32) -> Option<Backend> {
        BACKENDS.get(slot).copied()
    }

    #[inline(always)]
    fn nat_address(&self, index: u32) -> Option<NatAddress> {
        NAT_ADDRESSES.get(index).copied()
    }

    #[inline(always)]
    fn link(&self, slot: u32) -> Option<Link> {
        LINKS.get(slot).copied()
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
