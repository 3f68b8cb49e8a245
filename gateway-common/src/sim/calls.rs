//! Counts of the calls that stages make to the platform: in the kernel, of helpers.

use std::{cell::RefCell, collections::BTreeMap};

/// What was asked of the environment: what a packet costs beside the instructions of its way.
#[derive(Clone, Debug, Default)]
pub struct HelperCallCounts {
    counts: RefCell<BTreeMap<&'static str, u32>>,
}

impl HelperCallCounts {
    pub(crate) fn record(&self, call: &'static str) {
        *self.counts.borrow_mut().entry(call).or_default() += 1;
    }

    /// How often what was asked for since this was called last.
    #[must_use]
    pub fn take_counts(&self) -> BTreeMap<&'static str, u32> {
        self.counts.take()
    }
}
