//! Context of an operation: time, caller, identifiers, and the records that are created with them.

use gateway_common::flow::NetworkProto;
use jiff::Timestamp;
use uuid::Uuid;

use crate::model::{
    HostAddresses, HostUses, Meta, Name, Record, Version, event_id::EventId, record::Labels,
};

/// Inputs of an operation besides the state and the request.
pub struct OpContext<'a> {
    /// Time of the operation.
    pub now: Timestamp,
    /// Name of the caller, as records show it.
    pub actor: &'a str,
    /// True if the caller is the operator, who sees every object.
    pub is_operator: bool,
    /// Source of fresh identifiers.
    pub identifiers: &'a mut dyn Identifiers,
    /// Addresses that the gateway's host itself uses.
    pub host: &'a HostAddresses,
    /// Uses that the gateway's host makes of its interfaces.
    pub host_uses: &'a HostUses,
    /// Identifier after those of all earlier events, and before those of the operation and of all later ones.
    pub event_boundary: EventId,
}

impl<T> Record<T> {
    /// Creates the record of a new object.
    pub fn create(context: &mut OpContext<'_>, name: Name, labels: Labels, object: T) -> Self {
        Self {
            meta: Meta {
                name,
                uid: context.identifiers.uid(),
                version: Version::default(),
                created_at: context.now,
                updated_at: context.now,
                labels,
            },
            object,
        }
    }

    /// Returns the record with other labels and fields.
    #[must_use]
    pub fn update(&self, context: &OpContext<'_>, labels: Labels, object: T) -> Self {
        Self {
            meta: Meta {
                updated_at: context.now,
                labels,
                ..self.meta.clone()
            },
            object,
        }
    }
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
