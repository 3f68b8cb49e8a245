//! The data path of the private link gateway.
//!
//! This crate decides about every packet. It is `no_std` and generic over [`Platform`], the data path's interface
//! to its surroundings. The XDP program in the kernel (`gateway-ebpf`) and the simulation in `sim` implement that
//! trait, and both run the same code.
//!
//! ```text
//!   frame on an attachment
//!            │
//!            ▼
//!        [`process`] ──► dispatcher ──► subprograms ──► stages
//!            │                              │
//!            │                              └─► Platform: packet buffer, maps, clock
//!            ▼
//!   Verdict: pass, drop, reply, TCP reset, ICMP error, redirect
//! ```
//!
//! [`process`] handles one packet: it rewrites the packet's bytes, counts the decision and returns the [`Verdict`],
//! which the caller carries out. The [`pipeline`] is cut into [`Subprogram`]s, which the verifier checks one by one.
//! Each subprogram runs stages and ends with an [`Exit`].
//!
//! # Layers
//!
//! A module imports only those above it in this list:
//!
//! 1. `atomic`, `byte_order`, `checksum`, `address`, `hash`, `drop_reason`: values.
//! 2. `packet`: buffers and headers.
//! 3. `family`: the address families, IPv4 and IPv6.
//! 4. `flow`: flow keys, flow entries and their tables.
//! 5. `maps`: the layouts of the BPF maps, and access to them.
//! 6. `verdict`, `subprogram`: decisions.
//! 7. `platform`: the interface to the kernel or the simulation.
//! 8. `pipeline`: the stages.
//! 9. `sim`: the platform of tests.
//!
//! # Invariants
//!
//! - Every packet that is not forwarded has a [`DropReason`], and the reason is counted.
//! - The fast path and the slow path decide alike. The fast path only handles fewer packets.
//! - A packet is rewritten only after every check that can reject it: a rejected packet is answered as it arrived.
//! - Packet memory is accessed only through bounds-checked views ([`packet`]).
//! - Subprograms pass one word to each other, and each parses the packet for itself.

#![cfg_attr(not(any(test, feature = "sim")), no_std)]
// Inline assembly of the BPF target: see `atomic`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod address;
pub mod atomic;
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
