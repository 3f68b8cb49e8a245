//! The flow tables of both address families, as BPF hash maps.

use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_NOEXIST;
use gateway_common::{
    Family, V4, V6,
    flow::{DatagramKey, Flow, FlowKey, FlowRef, FlowTables, FragmentRecord, InsertError, Table},
};

use crate::{
    context::Xdp,
    maps::{
        FLOW_SCRATCH_V4, FLOW_SCRATCH_V6, FLOWS_V4, FLOWS_V6, FRAGMENTS_V4, FRAGMENTS_V6,
        HALF_OPEN_V4, HALF_OPEN_V6,
    },
};

const EEXIST: i32 = -17;

/// Wraps the result of a look-up.
#[inline(always)]
fn flow_ref<F: Family>(found: Option<*mut Flow<F>>) -> Option<FlowRef<F>> {
    // SAFETY: map memory stays mapped while the program runs. An evicted half-open entry may be given to another
    // flow meanwhile. In the worst case one packet of a flow that no longer exists is rewritten by that flow's
    // values, within the same checks of network and generation.
    found
        .and_then(NonNull::new)
        .map(|entry| unsafe { FlowRef::new(entry) })
}

/// Returns the cause of a failed insertion.
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

/// Implements the flow tables of a family.
macro_rules! flow_tables {
    ($family:ty, $established:ident, $half_open:ident, $fragments:ident, $scratch:ident) => {
        impl FlowTables<$family> for Xdp {
            #[inline(always)]
            fn lookup_flow(
                &self,
                table: Table,
                key: &FlowKey<$family>,
            ) -> Option<FlowRef<$family>> {
                flow_ref(match table {
                    Table::Established => $established.get_ptr_mut(key),
                    Table::HalfOpen => $half_open.get_ptr_mut(key),
                })
            }

            #[inline(always)]
            fn insert_flow(
                &mut self,
                table: Table,
                key: &FlowKey<$family>,
                flow: &Flow<$family>,
            ) -> Result<(), InsertError> {
                let flags = u64::from(BPF_NOEXIST);
                insert_error(match table {
                    Table::Established => $established.insert(key, flow, flags),
                    Table::HalfOpen => $half_open.insert(key, flow, flags),
                })
            }

            #[inline(always)]
            fn remove_flow(&mut self, table: Table, key: &FlowKey<$family>) {
                // An entry that is gone was removed by another CPU or by the agent: the result is the same.
                let _already_gone = match table {
                    Table::Established => $established.remove(key),
                    Table::HalfOpen => $half_open.remove(key),
                };
            }

            #[inline(always)]
            fn flow_scratch(&mut self) -> Option<NonNull<Flow<$family>>> {
                $scratch.get_ptr_mut(0).and_then(NonNull::new)
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
flow_tables!(V4, FLOWS_V4, HALF_OPEN_V4, FRAGMENTS_V4, FLOW_SCRATCH_V4);
flow_tables!(V6, FLOWS_V6, HALF_OPEN_V6, FRAGMENTS_V6, FLOW_SCRATCH_V6);
