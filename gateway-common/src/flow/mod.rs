//! Flows: the connection tracking state of TCP connections and UDP exchanges.
//!
//! A flow has two entries, one for each direction, with everything that forwarding its packets requires: addresses,
//! ports, checksum deltas, next hop. An entry is found by the [`FlowKey`] of an arriving packet, so one look-up
//! decides. Packets of a direction write only to the entry of that direction, so no cache line that is written for
//! each packet is shared by the two directions.
//!
//! # Life of a flow
//!
//! ```text
//!   packet that opens a flow is admitted
//!             │
//!             ▼
//!        half-open ───── replaced by a new flow, or timed out ────────────► gone
//!             │
//!             │ TCP: the consumer acknowledges the backend's SYN
//!             │ UDP: the consumer sends again after a reply
//!             ▼
//!       established ──── timed out ───────────────────────────────────────► gone
//!             │                                                              ▲
//!             │ TCP: both FINs acknowledged, or a reset accepted             │
//!             ▼                                                              │
//!          closed ────── another flow needs the place or the port ───────────┘
//! ```
//!
//! The states are those of an entry's place ([`PlaceState`]), in one table ([`table`]). A flow also ends when the
//! approval that it was opened under is revoked or its backend is removed. Entries hold the generations of both, and
//! the data path compares them for each packet.
//!
//! # Invariants
//!
//! - The reverse entry is inserted first: it is the reservation of the source port.
//! - A flow counts by the state of its entry towards the service, which one CPU changes at a time.
//! - Immutable fields are written before an entry is visible. Mutable fields are accessed only through [`FlowRef`].
//! - The invariants of the table are in [`table`], those of an insertion in [`insert`].

mod call;
mod control;
mod count;
mod entry;
mod entry_ref;
mod expiry;
mod fragments;
pub mod hash;
pub mod insert;
mod key;
pub mod memory;
mod network_proto;
mod return_path;
pub mod table;
mod tables;
mod tcp_state;
mod time;

pub use call::{FlowCall, FlowHandle, FlowId};
pub use control::{Control, PlaceState};
pub use count::FlowCount;
pub use entry::{
    Bucket, Direction, Flow, FlowEntry, MAX_BACKEND_SLOTS, MAX_CONNECTION_SLOTS, MAX_EGRESS_SLOTS,
    NO_PEER, WAYS,
};
pub use entry_ref::{BucketPtr, FlowRef, PlacePtr};
pub use expiry::{CLOSED_TICKS, ENDED_TICKS, FlowLife, FlowTimeouts, ORPHAN_TICKS};
pub use fragments::{DatagramKey, FragmentRecord};
pub use key::FlowKey;
pub use network_proto::NetworkProto;
pub use return_path::ReturnPath;
pub use tables::{FlowTableUsage, FlowTables};
pub use tcp_state::{TcpFlagsSeen, TcpState};
pub use time::CoarseTime;
