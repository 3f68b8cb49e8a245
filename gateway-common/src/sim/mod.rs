//! The simulation: the platform in ordinary memory, with maps, a clock that is set by hand, and a packet in a vector.
//! Tests and fuzzing run the stages on it.
//!
//! # Examples
//!
//! ```
//! use gateway_common::{DropReason, Verdict, drop_reason::Attribution, maps, sim::SimMaps};
//!
//! let mut sim = SimMaps::default();
//! // A frame with an EtherType for experiments (IEEE 802).
//! let mut frame = [0; 60];
//! frame[12..14].copy_from_slice(&[0x88, 0xb5]);
//!
//! // The interface is no attachment: the frame is passed to the host.
//! assert_eq!(sim.process(7, &frame).0, Verdict::Pass);
//!
//! // The interface belongs to an isolated network: the frame is dropped.
//! let attachment = maps::Attachment {
//!     ifindex: 7,
//!     network: 1,
//!     flags: maps::Attachment::ISOLATED,
//!     ..Default::default()
//! };
//! sim.attachments.insert(7, attachment);
//! let reason = DropReason::EtherTypeUnsupported;
//! let attribution = Attribution::new(reason, maps::NO_CONNECTION);
//! assert_eq!(sim.process(7, &frame).0, Verdict::Drop(attribution));
//! assert_eq!(sim.drops[&reason], 1);
//! ```

mod calls;
mod maps;
mod packet;
mod platform;
mod tables;

pub use calls::HelperCallCounts;
pub use maps::SimMaps;
pub use tables::{AtomicMap, SimEntry, SimFlowTable};
