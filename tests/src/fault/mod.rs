//! Faults that a test injects.

pub mod crash_consistency;
