//! The memory of a flow table, as its algorithms see it.
//!
//! The algorithms of [`table`](crate::flow::table) and [`insert`](crate::flow::insert) are generic over the memory, so
//! the same code runs over a BPF map in the kernel, over the agent's mapping of that map, over ordinary memory in
//! tests, and under a model checker.

use crate::{
    family::Family,
    flow::{CoarseTime, Control, Flow, FlowKey, insert::Survey},
};

/// The body of a bounded loop (`bpf_loop` in the kernel).
pub trait LoopBody<E> {
    /// Runs one iteration. Returns true to end the loop.
    fn iterate(&mut self, env: &mut E, iteration: u32) -> bool;
}

/// Something that runs bounded loops.
pub trait BoundedLoop: Sized {
    /// Runs the body until it returns true, for at most `times` iterations.
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C);
}

/// The memory of the flow table of an address family.
pub trait FlowMemory<F: Family>: BoundedLoop {
    /// A bucket of the table.
    type Bucket: Copy;
    /// A place in a bucket.
    type Place: Place<F>;

    /// Returns the number of buckets.
    fn bucket_count(&self) -> u32;
    /// Returns a bucket, or nothing if there is none with this index.
    fn bucket(&self, index: u32) -> Option<Self::Bucket>;
    /// Returns a place of a bucket. Only the last bits of `way` count.
    fn place(bucket: Self::Bucket, way: u32) -> Self::Place;
    /// Returns the hash of a key.
    fn hash(&self, key: &FlowKey<F>) -> u64;
    /// Looks at both buckets of a key. In the kernel it is a BPF global function.
    #[inline(always)]
    fn survey(&self, key: &FlowKey<F>) -> Survey {
        Survey::new(self, key)
    }
}

/// A place of the flow table. Other CPUs read and write it at the same time.
pub trait Place<F: Family>: Copy {
    /// Returns the control word. Everything that is loaded afterwards is at least as new.
    fn control(self) -> Control;
    /// Returns the control word. Everything that was loaded before is at most as new.
    fn control_after(self) -> Control;
    /// Replaces the control word if it equals `current`. Returns its previous value. Both outcomes are full barriers.
    fn compare_exchange(self, current: Control, new: Control) -> Control;
    /// Takes back the pin, which the caller has set. A full barrier.
    fn unpin(self);
    /// Returns true if the place has this key. The result has a meaning only if the control word read before is of an
    /// entry, and is the same afterwards.
    fn matches(self, key: &FlowKey<F>) -> bool;
    /// Writes an entry. The caller has reserved the place.
    fn write(self, key: &FlowKey<F>, flow: &Flow<F>);
    /// Returns the index of the other direction's entry.
    fn peer(self) -> u32;
    /// Sets the index of the other direction's entry.
    fn set_peer(self, index: u32);
    /// Returns the coarse time of the last packet.
    fn last_seen(self) -> CoarseTime;
    /// Returns true if packets of this entry leave as `other`'s arrive, in the other direction.
    fn is_reverse_of(self, other: Self) -> bool;
}
