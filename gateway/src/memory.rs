//! Memory that goes back to the system after a large request.
//!
//! glibc keeps what is freed in the arena of the thread that allocated it, and raises the size from which on it maps
//! allocations by themselves with each large one that is freed. With its defaults the peak of a large request stays
//! resident until the process ends, once for each arena. Another allocator would do as well, but would be one more
//! dependency in C; two settings and a call are enough.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Requests that end within this time are followed by one return of memory.
const DEBOUNCE: Duration = Duration::from_millis(200);

static TRIM_PENDING: AtomicBool = AtomicBool::new(false);

/// Has large allocations mapped by themselves, so that they go back to the system when they are freed, and bounds the
/// number of arenas. To be called before threads are started.
#[cfg(target_env = "gnu")]
pub fn configure() {
    /// Bytes from which on an allocation is mapped by itself, and that an arena keeps at its end.
    const MMAP_THRESHOLD: libc::c_int = 256 << 10;
    const MAX_ARENAS: libc::c_int = 4;
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (libc::M_TRIM_THRESHOLD, MMAP_THRESHOLD),
        (libc::M_ARENA_MAX, MAX_ARENAS),
    ] {
        // SAFETY: takes numbers; no other thread allocates yet.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            log::warn!(
                "memory: malloc did not take a parameter parameter={parameter} value={value}"
            );
        }
    }
}

/// Does nothing: other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn configure() {}

/// Gives freed memory back to the system soon, off the async workers.
pub fn trim_soon() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    if TRIM_PENDING.swap(true, Ordering::AcqRel) {
        return;
    }
    runtime.spawn(async {
        tokio::time::sleep(DEBOUNCE).await;
        TRIM_PENDING.store(false, Ordering::Release);
        let _ended = tokio::task::spawn_blocking(trim).await;
    });
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: may be called at any time, by any thread; it only releases pages that hold no allocation.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
