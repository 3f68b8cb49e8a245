//! The data path of the private link gateway.
//!
//! Everything that decides about a packet is here, `no_std` and generic over
//! [`Environment`]: the kernel's XDP program and the native tests are two implementations of that
//! trait and run the very same code. [`process`] is the packet's way, from top to bottom.
//!
//! One direction of dependence: `packet` and `flow` know bytes and values, `stages` know those and
//! the environment, the environment knows the layouts in [`maps`]. Nothing points back.

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
pub mod verdict;

pub use address::IpAddress;
pub use byte_order::{Be16, Be32};
pub use drop_reason::DropReason;
pub use family::{Family, V4, V6};
pub use pipeline::process;
pub use platform::Platform;
pub use verdict::{Exit, ExitKind, StageResult, Verdict};
