//! Objects of the control plane, and the operations on them. Pure: an operation is a function from the state, a
//! request and an [`OpContext`] to the changes that carry it out, or to the [`Problem`] that refuses it. Nothing in
//! this module does I/O.

pub mod access;
pub mod address;
pub mod authorization;
pub mod bounds;
pub mod connection;
pub mod endpoint;
pub mod event;
pub mod event_id;
pub mod event_retention;
pub mod eviction_index;
pub mod host;
pub mod identity;
pub mod invariants;
pub mod limits;
pub mod manifest;
pub mod name;
pub mod network;
pub mod object;
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
pub mod text;
pub mod token;
pub mod version;
pub mod webhook;

pub use access::{Access, Permission, Principal, Role};
pub use connection::{Connection, ConnectionState, Decision};
pub use endpoint::Endpoint;
pub use host::HostAddresses;
pub use identity::Identity;
pub use name::{Name, Reference};
pub use network::Network;
pub use object::{Change, Kind, Object};
pub use problem::{Problem, ProblemCode};
pub use record::{Meta, Record};
pub use service::Service;
pub use state::State;
pub use tenant::Tenant;
pub use token::Token;
pub use version::{Version, VersionKey};
pub use webhook::Webhook;

use gateway_common::flow::NetworkProto;
use jiff::Timestamp;
use uuid::Uuid;

/// Inputs of an operation besides the state and the request.
pub struct OpContext<'a> {
    /// Time of the operation.
    pub now: Timestamp,
    /// Name of the caller, as records show it.
    pub actor: &'a str,
    /// Source of fresh identifiers.
    pub identifiers: &'a mut dyn Identifiers,
    /// Addresses that the gateway's host itself uses.
    pub host: &'a HostAddresses,
}

/// Source of unique identifiers: random in the agent, counted in tests.
pub trait Identifiers {
    /// Returns 128 unpredictable bits.
    fn bits(&mut self) -> u128;

    /// Returns a unique identifier for an object.
    fn uid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bits().to_ne_bytes()).into_uuid()
    }

    /// Returns a secret of 256 unpredictable bits.
    fn secret(&mut self) -> [u8; 32] {
        bytemuck::cast([self.bits(), self.bits()])
    }

    /// Returns a number of 31 bits ([`NetworkProto::MAX_NETWORK`]) that is neither 0 nor taken. The number is random
    /// rather than counted: two gateways that share a store need no common counter, and a number that was released
    /// is not found in old flow entries.
    fn number(&mut self, is_taken: &dyn Fn(u32) -> bool) -> u32 {
        loop {
            for word in bytemuck::cast::<u128, [u32; 4]>(self.bits()) {
                let number = word & NetworkProto::MAX_NETWORK;
                if number != 0 && !is_taken(number) {
                    return number;
                }
            }
        }
    }

    /// Returns the random part of an alias: 16 lower-case base32 characters (RFC 4648), 80 bits.
    fn alias_part(&mut self) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let bytes = self.bits().to_ne_bytes();
        bytes
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
            .collect()
    }
}

/// Identifiers from the operating system's random number generator.
#[derive(Debug, Default)]
pub struct RandomIdentifiers;

impl Identifiers for RandomIdentifiers {
    fn bits(&mut self) -> u128 {
        Uuid::new_v4().as_u128() ^ (Uuid::new_v4().as_u128().rotate_left(64))
    }
}
