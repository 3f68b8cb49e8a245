//! The control plane's objects and what may be done with them. Pure: every operation is a function
//! from the state, a request and a [`Context`] to the changes that carry it out, or to the
//! [`Problem`] that refuses it. Nothing here does I/O.

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

/// What an operation needs besides the state: the time, who asks, and fresh identifiers.
pub struct OpContext<'a> {
    /// Now.
    pub now: Timestamp,
    /// Who asks, as the records show it.
    pub actor: &'a str,
    /// Where identifiers come from.
    pub identifiers: &'a mut dyn Identifiers,
    /// Addresses that the gateway's host has itself.
    pub host: &'a HostAddresses,
}

/// A source of identifiers that nobody else uses. Random in the agent, counted in tests.
pub trait Identifiers {
    /// 128 unpredictable bits.
    fn bits(&mut self) -> u128;

    /// An object's unique identifier.
    fn uid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bits().to_ne_bytes()).into_uuid()
    }

    /// A secret: 256 unpredictable bits.
    fn secret(&mut self) -> [u8; 32] {
        bytemuck::cast([self.bits(), self.bits()])
    }

    /// A number of 31 bits ([`Realm::MOST`]) that is not 0 and not one of those taken. Random rather than
    /// counted, so that two gateways that share a store need no common counter, and a number that was
    /// given up is not met again in old flow entries.
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

    /// 16 lower-case base32 characters (RFC 4648): the random part of an alias, 80 bits.
    fn alias_part(&mut self) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let bytes = self.bits().to_ne_bytes();
        bytes
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
            .collect()
    }
}

/// Identifiers from the operating system's random numbers.
#[derive(Debug, Default)]
pub struct RandomIdentifiers;

impl Identifiers for RandomIdentifiers {
    fn bits(&mut self) -> u128 {
        Uuid::new_v4().as_u128() ^ (Uuid::new_v4().as_u128().rotate_left(64))
    }
}
