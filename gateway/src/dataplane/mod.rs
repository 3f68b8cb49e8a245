//! The kernel's side: the program, its maps, and what is written into them.
//!
//! Pure: [`compile`] (desired state to [`contents`]), [`plan`] (two contents to the writes between
//! them), [`maglev`], [`expiry`]. I/O: [`program`] (loading, pinning, attaching), [`maps`] (reading
//! and writing), [`flow_tables`], [`syscalls`].

mod backend_slots;
pub mod compile;
pub mod compiled;
pub mod contents;
pub mod expiry;
pub mod flow_tables;
pub mod maglev;
pub mod maps;
mod mixed;
pub mod observed;
pub mod places;
pub mod plan;
pub mod program;
pub mod scope;
pub mod syscalls;
