//! The platform in the kernel: BPF helpers, the clock, and state that all CPUs share.

use core::{arch::asm, ffi::c_void, ptr::NonNull};

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_loop};
use gateway_common::{
    Exit, Platform, Subprogram,
    flow::{
        CoarseTime,
        memory::{BoundedLoop, LoopBody},
    },
    maps::{
        AddressConflict, AddressKey, ConnectionUsage, IdentificationSpace, IdentificationState,
        RejectMeters,
    },
    packet::Mac,
    platform::Scratch,
};

use crate::{
    context::Xdp,
    maps::{CLOCK, CONFLICTS, CONN_USAGE, CSUM_BUFFER, IDENTIFICATIONS, REJECT_METERS, SCRATCH},
    subprograms,
};

/// The context that the kernel passes to [`run_iteration`].
struct LoopContext<'a, C> {
    platform: &'a mut Xdp,
    body: &'a mut C,
}

/// Runs one iteration of [`BoundedLoop::bounded_loop`], as the callback of `bpf_loop`. Returns 1 to end the loop.
///
/// # Safety
/// `context` points to a live value that nothing else refers to.
unsafe extern "C" fn run_iteration<C: LoopBody<Xdp>>(
    iteration: u64,
    context: *mut LoopContext<'_, C>,
) -> u64 {
    // SAFETY: the caller's promise.
    let context = unsafe { &mut *context };
    u64::from(context.body.iterate(context.platform, iteration as u32))
}

impl BoundedLoop for Xdp {
    #[inline(always)]
    fn bounded_loop<C: LoopBody<Self>>(&mut self, times: u32, body: &mut C) {
        let mut loop_context = LoopContext {
            platform: self,
            body,
        };
        // SAFETY: the helper calls the function with the given pointer, and only before it returns.
        unsafe {
            bpf_loop(
                times,
                run_iteration::<C> as *const () as *mut c_void,
                (&raw mut loop_context).cast(),
                0,
            );
        }
    }
}

impl Platform for Xdp {
    #[inline(always)]
    fn call_subprogram(&mut self, subprogram: Subprogram, argument: u64) -> Exit {
        subprograms::call_subprogram(self.ctx.ctx, subprogram, argument)
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
        // SAFETY: the buffer belongs to this CPU alone, is aligned as map values are, and is long enough. The verifier
        // does not track the contents of map memory, so the value comes back without a range.
        unsafe {
            scratch.write_volatile(value);
            scratch.read_volatile()
        }
    }

    #[inline(always)]
    fn scratch(&mut self) -> Option<NonNull<Scratch>> {
        SCRATCH.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn now(&self) -> CoarseTime {
        CoarseTime::from_nanoseconds(self.now_nanoseconds())
    }

    #[inline(always)]
    fn cached_now(&self) -> CoarseTime {
        // The kernel advances the coarse clock once in each jiffy. To read the number of jiffies takes one load, and no
        // call.
        // SAFETY: the helper has no argument and returns a number.
        let jiffies = unsafe { bpf_jiffies64() };
        let Some(clock) = CLOCK.get_ptr_mut(0) else {
            return self.now();
        };
        // SAFETY: the value belongs to this CPU alone, and no other program runs on it meanwhile.
        let clock = unsafe { &mut *clock };
        if clock.jiffies != jiffies {
            clock.jiffies = jiffies;
            clock.now = self.now().0.into();
        }
        CoarseTime(clock.now as u32)
    }

    #[inline(always)]
    fn now_nanoseconds(&self) -> u64 {
        // SAFETY: the helper has no argument and returns a number.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn usage(&self, slot: u32) -> Option<NonNull<ConnectionUsage>> {
        CONN_USAGE.get_ptr_mut(slot).and_then(NonNull::new)
    }

    #[inline(always)]
    fn reject_meters(&self, index: u32) -> Option<NonNull<RejectMeters>> {
        REJECT_METERS.get_ptr_mut(index).and_then(NonNull::new)
    }

    #[inline(always)]
    fn identification_state(&self, bucket: u32) -> Option<NonNull<IdentificationState>> {
        IDENTIFICATIONS.get_ptr_mut(bucket).and_then(NonNull::new)
    }

    #[inline(always)]
    fn record_conflict(&mut self, key: &AddressKey, mac: Mac, is_probe: bool) {
        let conflict = AddressConflict {
            mac,
            is_probe: is_probe.into(),
            last_seen: self.now().0,
        };
        // A failure loses one observation: the other host will claim the address again.
        let _lost = CONFLICTS.insert(key, conflict, 0);
    }

    #[inline(always)]
    unsafe fn atomic_add(&self, number: NonNull<u64>, amount: u64) {
        // Rust's atomics have no addition on this target. The instruction has existed since the first kernels with
        // eBPF.
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
}
