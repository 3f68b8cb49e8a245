//! Counts of the calls that stages make to the platform. In the kernel most of them are BPF helper calls.

use std::{cell::RefCell, collections::BTreeMap};

/// Calls to the platform, counted by name. They are the cost of a packet beside the instructions of its stages.
#[derive(Clone, Debug, Default)]
pub struct HelperCallCounts {
    counts: RefCell<BTreeMap<&'static str, u32>>,
}

impl HelperCallCounts {
    pub(crate) fn record(&self, call: &'static str) {
        *self.counts.borrow_mut().entry(call).or_default() += 1;
    }

    /// Returns the counts since the last call, and resets them.
    #[must_use]
    pub fn take_counts(&self) -> BTreeMap<&'static str, u32> {
        self.counts.take()
    }
}
