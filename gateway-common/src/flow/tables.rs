//! The flow table and the fragment records of an address family, as a part of the platform.

use core::ptr::NonNull;

use crate::{
    family::Family,
    flow::{
        BucketPtr, DatagramKey, Flow, FlowCall, FlowCount, FragmentRecord, PlacePtr,
        memory::FlowMemory,
    },
};

use bytemuck::{Pod, Zeroable};

/// Usage of a flow table. All CPUs write it, atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowTableUsage {
    /// Number of established flows.
    pub established: FlowCount,
    /// Number of buckets that were swept since the table was made.
    pub swept: u64,
    /// Fingerprint of the numbers that the table's hash is computed with. 0 while unknown.
    pub hash_fingerprint: u64,
    /// Padding to a cache line.
    pub reserved: [u64; 5],
}

/// The flow table and the fragment records of an address family.
pub trait FlowTables<F: Family>: FlowMemory<F, Place = PlacePtr<F>, Bucket = BucketPtr<F>> {
    /// Runs [`pipeline::run_flow_call`](crate::pipeline::run_flow_call). In the kernel it is a BPF global function,
    /// which the verifier checks by itself.
    fn call(&mut self, call: FlowCall, arguments: [u64; 5]) -> u64;

    /// Returns memory to build an entry in. It belongs to the current packet alone and holds arbitrary bytes.
    fn flow_scratch(&mut self) -> Option<NonNull<Flow<F>>>;

    /// Returns the usage of the flow table. Other CPUs write it too: load its fields whole, and write them by atomic
    /// operations.
    fn flow_table_usage(&self) -> Option<NonNull<FlowTableUsage>>;

    /// Returns the record of a fragmented datagram, if there is one.
    fn fragment_record(&self, key: &DatagramKey<F>) -> Option<FragmentRecord>;

    /// Stores the record of a fragmented datagram for its later fragments. The least recently used record is evicted
    /// to make room.
    fn record_fragment(&mut self, key: &DatagramKey<F>, record: &FragmentRecord);
}
