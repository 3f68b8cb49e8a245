//! The counters, in per-CPU maps.

use aya_ebpf::maps::PerCpuHashMap;
use gateway_common::{
    DropReason,
    drop_reason::Attribution,
    flow::Direction,
    maps::{AttachmentDropKey, ConnectionDropKey, Counters, NO_CONNECTION, Statistic},
};

use crate::{
    context::Xdp,
    maps::{ATTACH_DROPS, CONN_COUNTERS, CONN_DROPS, DROPS, STATISTICS},
};

/// Increments a counter of this CPU.
#[inline(always)]
fn increment(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: a live element of a per-CPU map, written by this CPU alone: XDP does not preempt XDP.
        unsafe { *counter += 1 }
    }
}

/// Adds to a counter of this CPU, which may not exist yet. A full map loses the number; the counter of the drop reason
/// has it all the same.
#[inline(always)]
fn add<K>(counters: &PerCpuHashMap<K, u64>, key: &K, amount: u64) {
    if let Some(counter) = counters.get_ptr_mut(key) {
        // SAFETY: as in `increment`.
        unsafe { *counter += amount }
    } else {
        let _full = counters.insert(key, amount, 0);
    }
}

/// Counts frames that an attachment dropped, or did not take.
#[inline(always)]
pub(crate) fn count_attachment_drops(ifindex: u32, reason: DropReason, amount: u64) {
    let reason = reason as u32;
    if let Some(counter) = DROPS.get_ptr_mut(reason) {
        // SAFETY: as in `increment`.
        unsafe { *counter += amount }
    }
    add(
        &ATTACH_DROPS,
        &AttachmentDropKey { ifindex, reason },
        amount,
    );
}

/// Counts a dropped or rejected packet. A function of its own, since the entry point has no stack left for the keys,
/// and calls it from several places.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_drop(ifindex: u64, reason: u64, connection_slot: u64) -> u64 {
    let (ifindex, connection_slot) = (ifindex as u32, connection_slot as u32);
    let Some(reason) = DropReason::from_number(reason as u32) else {
        return 0;
    };
    count_attachment_drops(ifindex, reason, 1);
    if connection_slot == NO_CONNECTION {
        return 0;
    }
    if reason == DropReason::ConnectionNotApproved {
        if let Some(counters) = CONN_COUNTERS.get_ptr_mut(connection_slot) {
            // SAFETY: as in `increment`.
            unsafe { (*counters).not_approved += 1 }
        }
        return 0;
    }
    let key = ConnectionDropKey {
        connection_slot,
        reason: reason as u32,
    };
    add(&CONN_DROPS, &key, 1);
    0
}

impl Counters for Xdp {
    #[inline(always)]
    fn count_drop(&mut self, attribution: Attribution) {
        let Attribution {
            reason,
            connection_slot,
        } = attribution;
        count_drop(self.ifindex().into(), reason as u64, connection_slot.into());
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
