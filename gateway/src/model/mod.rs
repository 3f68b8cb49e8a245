//! Objects of the control plane, and the operations on them. Pure: an operation is a function from the state, a
//! request and an [`OpContext`] to the changes that carry it out, or to the [`Problem`] that refuses it. Nothing in
//! this module does I/O.

pub mod access;
pub mod address;
pub mod authorization;
pub mod bounds;
pub mod connection;
pub mod context;
pub mod endpoint;
pub mod event;
pub mod event_id;
pub mod event_retention;
pub mod eviction_index;
pub mod host;
pub mod identity;
pub mod invariants;
pub mod kind;
pub mod limits;
pub mod manifest;
pub mod name;
pub mod network;
pub mod object;
pub mod object_size;
pub mod occupancy;
pub mod operations;
pub mod problem;
pub mod record;
pub mod schema;
pub mod service;
pub mod slot_allocator;
pub mod state;
mod strict;
pub mod tenant;
pub mod tenant_size;
pub mod text;
pub mod token;
pub mod version;
pub mod webhook;

pub use access::{Access, Permission, Principal, Role};
pub use connection::{Connection, ConnectionState, Decision};
pub use context::{Identifiers, OpContext, RandomIdentifiers};
pub use endpoint::Endpoint;
pub use host::HostAddresses;
pub use identity::Identity;
pub use kind::Kind;
pub use name::{Name, Reference};
pub use network::Network;
pub use object::{Change, Object};
pub use problem::{Problem, ProblemCode};
pub use record::{Meta, Record};
pub use service::Service;
pub use state::State;
pub use tenant::Tenant;
pub use token::Token;
pub use version::{Version, VersionKey};
pub use webhook::Webhook;
