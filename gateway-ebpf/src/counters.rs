//! The counters, in per-CPU maps.

use gateway_common::{
    DropReason,
    drop_reason::Attribution,
    flow::Direction,
    maps::{ConnectionDropKey, Counters, NO_CONNECTION, Statistic},
};

use crate::{
    context::Xdp,
    maps::{CONN_COUNTERS, CONN_DROPS, DROPS, STATISTICS},
};

/// Increments a counter of this CPU.
#[inline(always)]
fn increment(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: a live element of a per-CPU map, written by this CPU alone: XDP does not preempt XDP.
        unsafe { *counter += 1 }
    }
}

impl Counters for Xdp {
    #[inline(always)]
    fn count_drop(&mut self, attribution: Attribution) {
        let Attribution {
            reason,
            connection_slot,
        } = attribution;
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
            // A full map loses the connection's share. The counter of the reason has it all the same.
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
