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
//!        half-open ───── evicted (least recently used) or timed out ─────► removed
//!             │
//!             │ TCP: the consumer acknowledges the backend's SYN
//!             │ UDP: the consumer sends again after a reply
//!             ▼
//!       established ──── timed out, removed by GC ───────────────────────► removed
//!             │                                                               ▲
//!             │ TCP: FIN in both directions, or RST                           │
//!             ▼                                                               │
//!          closed ────── timed out, or a SYN opens the next flow ─────────────┘
//! ```
//!
//! Half-open and established flows lie in different tables ([`Table`]). The half-open table evicts its least recently
//! used entry, so a flood of first packets evicts half-open flows only. The established table never evicts.
//!
//! A flow also ends, in either table, when the approval that it was opened under is revoked or its backend is
//! removed. Entries hold the generations of both, and the data path compares them for each packet.
//!
//! # Invariants
//!
//! - The TCP state is a function of the flags seen in both entries ([`TcpState::from_flags_seen`]), so it need not be
//!   stored.
//! - The reverse entry is inserted first: it is the reservation of the source port.
//! - A flow enters the established table before it leaves the half-open one, so a look-up in both misses none.
//! - Immutable fields are written before an entry is inserted. Mutable fields are accessed only through [`FlowRef`].

mod entry;
mod entry_ref;
mod fields;
mod fragments;
mod key;
mod network_proto;
mod tables;
mod tcp_state;
mod time;

pub use entry::{Direction, Flow, MAX_BACKEND_SLOTS};
pub use entry_ref::FlowRef;
pub use fields::{EntryNextHop, StateWord};
pub use fragments::{DatagramKey, FragmentRecord};
pub use key::FlowKey;
pub use network_proto::NetworkProto;
pub use tables::{FlowTables, InsertError, Table};
pub use tcp_state::{TcpFlagsSeen, TcpState};
pub use time::CoarseTime;
