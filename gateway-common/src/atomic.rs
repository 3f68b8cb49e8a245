//! Atomic operations and compiler barriers on map memory.
//!
//! The BPF target has no atomic read-modify-write operations in Rust, so they are instructions here. Elsewhere they are
//! Rust's own. A failed and a successful exchange are full barriers on both.

use core::ptr::NonNull;

/// Replaces a number by `new` if it equals `current`. Returns the number's previous value.
///
/// # Safety
/// `number` is in bounds of live memory, aligned, and written only by atomic operations.
#[inline(always)]
#[must_use]
#[cfg(target_arch = "bpf")]
pub unsafe fn compare_exchange(number: NonNull<u32>, current: u32, new: u32) -> u32 {
    let found;
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!(
            "w0 = cmpxchg32_32({number} + 0, w0, {new})",
            number = in(reg) number.as_ptr(),
            new = in(wreg) new,
            inlateout("w0") current => found,
        );
    }
    found
}

/// Replaces a number by `new` if it equals `current`. Returns the number's previous value.
///
/// # Safety
/// `number` is in bounds of live memory, aligned, and written only by atomic operations.
#[inline(always)]
#[must_use]
#[cfg(not(target_arch = "bpf"))]
pub unsafe fn compare_exchange(number: NonNull<u32>, current: u32, new: u32) -> u32 {
    use core::sync::atomic::{AtomicU32, Ordering};
    // SAFETY: the caller's promise.
    let number = unsafe { AtomicU32::from_ptr(number.as_ptr()) };
    match number.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(found) | Err(found) => found,
    }
}

/// Subtracts from a number.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub unsafe fn subtract(number: NonNull<u32>, amount: u32) {
    // SAFETY: the caller's promise. The compiler moves no access to memory across the instruction, which is a full
    // barrier on x86-64.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)({number} + 0) += {amount}",
            number = in(reg) number.as_ptr(),
            amount = in(wreg) amount.wrapping_neg(),
        );
    }
}

/// Subtracts from a number.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub unsafe fn subtract(number: NonNull<u32>, amount: u32) {
    use core::sync::atomic::{AtomicU32, Ordering};
    // SAFETY: the caller's promise.
    unsafe { AtomicU32::from_ptr(number.as_ptr()) }.fetch_sub(amount, Ordering::SeqCst);
}

/// Loads a number that other CPUs write, before everything that is loaded after it.
///
/// # Safety
/// `number` is in bounds of live memory, aligned, and written only by atomic operations.
#[inline(always)]
#[must_use]
#[cfg(target_arch = "bpf")]
pub unsafe fn load_acquire(number: NonNull<u32>) -> u32 {
    let found;
    // SAFETY: the caller's promise. The compiler moves no access to memory across the instruction, and x86-64 keeps the
    // order of loads.
    unsafe {
        core::arch::asm!(
            "{found} = *(u32 *)({number} + 0)",
            number = in(reg) number.as_ptr(),
            found = out(wreg) found,
        );
    }
    found
}

/// Loads a number that other CPUs write, before everything that is loaded after it.
///
/// # Safety
/// `number` is in bounds of live memory, aligned, and written only by atomic operations.
#[inline(always)]
#[must_use]
#[cfg(not(target_arch = "bpf"))]
pub unsafe fn load_acquire(number: NonNull<u32>) -> u32 {
    use core::sync::atomic::{AtomicU32, Ordering};
    // SAFETY: the caller's promise.
    unsafe { AtomicU32::from_ptr(number.as_ptr()) }.load(Ordering::Acquire)
}

/// Loads a number that other CPUs write, after everything that was loaded before it.
///
/// # Safety
/// As for [`load_acquire`].
#[inline(always)]
#[must_use]
pub unsafe fn load_after(number: NonNull<u32>) -> u32 {
    #[cfg(not(target_arch = "bpf"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
    // SAFETY: the caller's promise. On the BPF target the instruction is the barrier.
    unsafe { load_acquire(number) }
}

/// Loads a word of 64 bits whole.
///
/// # Safety
/// `word` is in bounds of live memory, and aligned.
#[inline(always)]
#[must_use]
pub unsafe fn load_word(word: NonNull<u64>) -> u64 {
    // SAFETY: the caller's promise. A volatile access to an aligned word is one instruction on every target.
    unsafe { word.read_volatile() }
}

/// Stores a word of 64 bits whole.
///
/// # Safety
/// As for [`load_word`].
#[inline(always)]
pub unsafe fn store_word(word: NonNull<u64>, value: u64) {
    // SAFETY: as for `load_word`.
    unsafe { word.write_volatile(value) }
}

/// Returns the highest bit of `word` as 0 or 1, and hides from the compiler how it was computed. So an arithmetic result
/// is not turned into branches, each of which would multiply the paths that the verifier checks.
#[inline(always)]
#[must_use]
pub fn highest_bit(word: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut word = word;
        // SAFETY: the instruction changes one register.
        unsafe {
            core::arch::asm!(
                "{word} >>= 63",
                word = inout(reg) word,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        word
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        word >> 63
    }
}
