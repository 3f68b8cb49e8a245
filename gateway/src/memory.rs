//! Settings of malloc that return memory to the system after a large request.
//!
//! glibc keeps freed memory in the arena of the thread that allocated it. Each large allocation that is freed raises
//! the size from which allocations are mapped separately. With the defaults the peak of a large request therefore
//! stays resident until the process ends, once for each arena. Another allocator would solve this as well, but would
//! be one more dependency in C. Three settings and a call suffice.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Delay of a trim, so that requests that end shortly after one another cause only one.
const DEBOUNCE: Duration = Duration::from_millis(200);

static TRIM_PENDING: AtomicBool = AtomicBool::new(false);

/// Configures malloc. To be called before threads are started.
///
/// Large allocations are mapped separately, so that they are returned to the system when they are freed. The number of
/// arenas is bounded.
#[cfg(target_env = "gnu")]
pub fn configure() {
    /// Size in bytes from which an allocation is mapped separately, and free memory that an arena may keep at its end.
    const MMAP_THRESHOLD: libc::c_int = 256 << 10;
    const MAX_ARENAS: libc::c_int = 4;
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (libc::M_TRIM_THRESHOLD, MMAP_THRESHOLD),
        (libc::M_ARENA_MAX, MAX_ARENAS),
    ] {
        // SAFETY: the call takes numbers, and no other thread allocates yet.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            log::warn!("memory: malloc refused a parameter parameter={parameter} value={value}");
        }
    }
}

/// Does nothing, because other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn configure() {}

/// Schedules a return of freed memory to the system, on a blocking thread.
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
    // SAFETY: any thread may make the call at any time. It releases only pages that hold no allocation.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
