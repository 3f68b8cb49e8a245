//! The flow tables of both address families, as BPF array maps.

use core::ptr::NonNull;

use aya_ebpf::{Global, maps::Array};
use gateway_common::{
    Family, V4, V6,
    flow::{
        Bucket, BucketPtr, DatagramKey, Flow, FlowCall, FlowKey, FlowTableUsage, FlowTables,
        FragmentRecord, PlacePtr,
        hash::{HASH_KEY_COUNT, hash_key},
        insert::Survey,
        memory::FlowMemory,
    },
};

use crate::{
    context::Xdp,
    flow_calls,
    maps::{
        FLOW_BUCKETS, FLOW_HASH_KEYS, FLOW_SCRATCH_V4, FLOW_SCRATCH_V6, FLOW_USAGE, FLOWS_V4,
        FLOWS_V6, FRAGMENTS_V4, FRAGMENTS_V6,
    },
};

/// Returns a bucket of a flow table.
#[inline(always)]
fn bucket<F: Family>(table: &Array<Bucket<F>>, index: u32) -> Option<BucketPtr<F>> {
    let bucket = NonNull::new(table.get_ptr_mut(index)?)?;
    // SAFETY: map memory stays mapped while the program runs, and everybody writes it through these pointers.
    Some(unsafe { BucketPtr::new(bucket) })
}

/// Returns a secret number of the flow tables' hash.
#[inline(always)]
fn hash_number(index: usize) -> u64 {
    // SAFETY: a global is transparent over its value. Every index is a constant below the length.
    unsafe {
        (&raw const FLOW_HASH_KEYS)
            .cast::<u64>()
            .add(index)
            .read_volatile()
    }
}
const _: () = assert!(size_of::<Global<[u64; HASH_KEY_COUNT]>>() == 8 * HASH_KEY_COUNT);

/// Implements the flow table of a family.
macro_rules! flow_tables {
    ($family:ty, $call:ident, $flows:ident, $number:literal, $fragments:ident, $scratch:ident) => {
        impl FlowMemory<$family> for Xdp {
            type Bucket = BucketPtr<$family>;
            type Place = PlacePtr<$family>;

            #[inline(always)]
            fn bucket_count(&self) -> u32 {
                FLOW_BUCKETS.load()
            }

            #[inline(always)]
            fn bucket(&self, index: u32) -> Option<BucketPtr<$family>> {
                bucket(&$flows, index)
            }

            #[inline(always)]
            fn place(bucket: BucketPtr<$family>, way: u32) -> PlacePtr<$family> {
                bucket.place(way)
            }

            #[inline(always)]
            fn hash(&self, key: &FlowKey<$family>) -> u64 {
                hash_key(key, hash_number)
            }

            #[inline(always)]
            fn survey(&self, key: &FlowKey<$family>) -> Survey {
                Survey::from_bits(flow_calls::$call(FlowCall::Survey, key.to_words()))
            }
        }

        impl FlowTables<$family> for Xdp {
            #[inline(always)]
            fn call(&mut self, call: FlowCall, arguments: [u64; 5]) -> u64 {
                flow_calls::$call(call, arguments)
            }

            #[inline(always)]
            fn flow_scratch(&mut self) -> Option<NonNull<Flow<$family>>> {
                $scratch.get_ptr_mut(0).and_then(NonNull::new)
            }

            #[inline(always)]
            fn flow_table_usage(&self) -> Option<NonNull<FlowTableUsage>> {
                FLOW_USAGE.get_ptr_mut($number).and_then(NonNull::new)
            }

            #[inline(always)]
            fn fragment_record(&self, key: &DatagramKey<$family>) -> Option<FragmentRecord> {
                // SAFETY: copied immediately. If the entry is evicted meanwhile, the copy has another datagram's
                // ports, with which the fragment matches no flow of its own.
                unsafe { $fragments.get(key).copied() }
            }

            #[inline(always)]
            fn record_fragment(&mut self, key: &DatagramKey<$family>, record: &FragmentRecord) {
                // A failure loses the later fragments of one datagram, which are counted as orphans.
                let _lost = $fragments.insert(key, record, 0);
            }
        }
    };
}
flow_tables!(V4, call_v4, FLOWS_V4, 0, FRAGMENTS_V4, FLOW_SCRATCH_V4);
flow_tables!(V6, call_v6, FLOWS_V6, 1, FRAGMENTS_V6, FLOW_SCRATCH_V6);
