//! Waiting for a condition, with a deadline.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Limit for conditions that should hold almost at once.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Returns the factor for all time-outs: `PLGW_TEST_PATIENCE`, for emulated machines.
#[must_use]
pub fn timeout_factor() -> u32 {
    let given = std::env::var("PLGW_TEST_PATIENCE").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Waits until `condition` returns a value.
///
/// # Panics
/// Panics if it has given nothing by the deadline; `what` says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let deadline = deadline * timeout_factor();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// Panics like [`until`].
#[track_caller]
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, DEFAULT_TIMEOUT, || condition().then_some(()));
}
