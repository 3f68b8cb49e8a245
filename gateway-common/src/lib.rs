//! The data path of the private link gateway.
//!
//! Everything that decides about a packet is here, `no_std` and generic over
//! [`Environment`]: the kernel's XDP program and the native tests are two implementations of that
//! trait and run the very same code. [`process`] is the packet's way, from top to bottom.
//!
//! One direction of dependence: `packet` and `flow` know bytes and values, `stages` know those and
//! the environment, the environment knows the layouts in [`maps`]. Nothing points back.

#![cfg_attr(not(any(test, feature = "native")), no_std)]

pub mod address;
pub mod byte_order;
pub mod checksum;
pub mod drop_reason;
pub mod environment;
pub mod family;
pub mod flow;
pub mod hash;
pub mod maps;
#[cfg(any(test, feature = "native"))]
pub mod native;
pub mod packet;
pub mod stages;
pub mod verdict;

pub use address::IpAddress;
pub use byte_order::{Be16, Be32};
pub use drop_reason::DropReason;
pub use environment::Environment;
pub use family::{Family, V4, V6};
pub use stages::process;
pub use verdict::{Next, Step, Turn, Verdict};
