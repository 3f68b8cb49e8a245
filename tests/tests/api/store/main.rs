//! Faults of the store: power loss at any write, a full, failing or read-only disk, damage, and restores.
//!
//! No fault leaves a part of a change, and no traffic flows that the store does not allow.

mod crashes;
mod disk_faults;
mod layout;
mod restore;
