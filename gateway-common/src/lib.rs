//! The data path of the private link gateway.
//!
//! Everything that decides about a packet is here, `no_std` and generic over [`Platform`]. The XDP program of the
//! kernel and the simulation in `sim` are two implementations of that trait and run the same code.
//! [`process`] handles one packet.
//!
//! A module imports only those above it in this list:
//!
//! 1. `byte_order`, `checksum`, `address`, `hash`, `drop_reason`: values.
//! 2. `packet`: buffers and headers.
//! 3. `family`: the address families, IPv4 and IPv6.
//! 4. `flow`: flow keys, flow entries and their tables.
//! 5. `maps`: the layouts of the BPF maps, and access to them.
//! 6. `verdict`, `subprogram`: decisions.
//! 7. `platform`: everything that stages use beside their own code.
//! 8. `pipeline`: the stages.
//! 9. `sim`: the platform of tests.

#![cfg_attr(not(any(test, feature = "sim")), no_std)]

pub mod address;
pub mod byte_order;
pub mod checksum;
pub mod drop_reason;
pub mod family;
pub mod flow;
pub mod hash;
pub mod maps;
pub mod packet;
pub mod pipeline;
pub mod platform;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod subprogram;
pub mod verdict;

pub use address::IpAddress;
pub use byte_order::{Be16, Be32};
pub use drop_reason::DropReason;
pub use family::{Family, V4, V6};
pub use pipeline::process;
pub use platform::Platform;
pub use subprogram::{Exit, ExitKind, StageResult, Subprogram};
pub use verdict::Verdict;
