//! The kernel's side.
pub mod loader;
