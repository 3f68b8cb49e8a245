//! Flows: one entry for each direction, with everything that its packets need.
//!
//! Packets of a direction write to the entry of that direction only, so the two directions share no
//! cache line that is written for each packet. The state of the flow is a function of both entries
//! ([`TcpState::from_flags_seen`]).

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
