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
    DropReason, Environment,
    checksum::Sum,
    environment::InsertError,
    flow::{Direction, Flow, FlowKey, FlowRef, Table, Tick},
    maps::{
        Address, AddressKey, Attachment, Backend, Egress, Link, LinkDropKey, NO_LINK, NatAddress,
        Port, PortKey, Statistic, attachment_index,
    },
};

use crate::maps::{
    ADDRESSES, ATTACHMENT_OVER, ATTACHMENTS, BACKENDS, CHUNK, DROPS, EGRESS, EMBRYONIC, FLOWS,
    HASH_SEED, LINK_COUNTERS, LINK_DROPS, LINKS, MAGLEV, NAT_ADDRESSES, PORTS, SCRATCH, STATISTICS,
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
    fn truncate(&mut self, length: usize) -> bool {
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
    fn flow(&self, table: Table, key: &FlowKey) -> Option<FlowRef> {
        let found = match table {
            Table::Established => FLOWS.get_ptr_mut(key),
            Table::Embryonic => EMBRYONIC.get_ptr_mut(key),
        };
        // SAFETY: map memory stays mapped while the program runs. An evicted embryonic entry may
        // become another flow's meanwhile: at worst one packet of a flow that no longer exists is
        // rewritten by that flow's values, within the same checks of network and generation.
        found
            .and_then(NonNull::new)
            .map(|entry| unsafe { FlowRef::new(entry) })
    }

    #[inline(always)]
    fn insert_flow(&mut self, table: Table, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        let flags = u64::from(BPF_NOEXIST);
        let inserted = match table {
            Table::Established => FLOWS.insert(key, flow, flags),
            Table::Embryonic => EMBRYONIC.insert(key, flow, flags),
        };
        inserted.map_err(|error| {
            if error == EEXIST {
                InsertError::Exists
            } else {
                InsertError::Full
            }
        })
    }

    #[inline(always)]
    fn remove_flow(&mut self, table: Table, key: &FlowKey) {
        // What is gone already was removed by somebody else, which is as good.
        let _already_gone = match table {
            Table::Established => FLOWS.remove(key),
            Table::Embryonic => EMBRYONIC.remove(key),
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
