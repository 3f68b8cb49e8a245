//! Layouts of the BPF maps that the agent and the data path share, and access to them.
//!
//! The agent writes the configuration, and each packet is a walk through it:
//!
//! ```text
//!   ifindex                       ATTACHMENTS ──► network, attachment slot
//!   network, address              ADDRESSES ────► connection slot, generation, resource
//!   resource, protocol, port      PORTS ────────► regions of MAGLEV and NAT_ADDRESSES
//!   hash within the region        MAGLEV ───────► backend slot
//!   backend slot                  BACKENDS ─────► next hop, egress slot
//!   egress slot                   EGRESS ───────► network, MTU, MAC address
//!                                 TX_PORTS ─────► device
//!   connection slot               CONNECTIONS ──► generation
//!                                 LIMITS ───────► rate limits
//! ```
//!
//! A packet of an established flow takes a shortcut: its flow entry holds the result of that walk.
//!
//! The data path writes its state (flows, fragment records, usage, identifications, address conflicts) and the
//! counters. The agent reads them, removes dead flows and corrects the number of flows of a connection.
//!
//! # Invariants
//!
//! - Every layout is plain old data without padding: bytes between fields could differ in equal keys.
//! - The agent is the only writer of the configuration.
//! - A value in a hash map is replaced whole, so a reader sees the old or the new one.
//! - A value in an array is written in place. A reader that sees half of a change detects it by a generation or by the
//!   field that names the owner.
//! - A generation never decreases, so a flow that was revoked stays revoked.

mod access;
mod config;
mod counters;
mod identification;
mod limits;
pub mod name;
mod packet_log;

pub use access::{ConfigMaps, Counters, MapValueRef};
pub use config::{
    ATTACHMENT_BUCKETS, AddressConflict, AddressKey, Attachment, Backend, Connection, Egress,
    LocalAddress, MAX_ATTACHMENTS, MAX_BACKENDS, MAX_CONNECTIONS, MAX_MAGLEV_ENTRIES,
    MAX_NAT_ADDRESSES, NO_CONNECTION, NatAddress, Port, PortKey, attachment_index,
};
pub use counters::{AttachmentDropKey, ConnectionCounters, ConnectionDropKey, Statistic};
pub use identification::{IDENTIFICATION_BUCKETS, IdentificationSpace, IdentificationState};
pub use limits::{
    CONNECTION_USAGE_COUNT, ConnectionUsage, Limits, REJECT_METER_COUNT, RejectMeters,
    reject_meters_index,
};
pub use packet_log::{LOGGED_BYTES, LoggedPacket, LoggedVerdict};

/// Version of the map layouts. It changes whenever a layout, or the meaning of a field, changes. An upgrade takes over
/// the maps of an earlier version whose format and meaning are the same.
pub const LAYOUT_VERSION: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        drop_reason::DropReason,
        family::{V4, V6},
        flow::{Bucket, Flow, FlowKey, FlowTableUsage, FragmentRecord},
    };

    /// A changed size requires a new `LAYOUT_VERSION`.
    #[test]
    fn layout_version_changes_with_sizes() {
        assert_eq!(LAYOUT_VERSION, 8);
        let sizes = [
            size_of::<Attachment>(),
            size_of::<Egress>(),
            size_of::<AddressKey>(),
            size_of::<LocalAddress>(),
            size_of::<PortKey>(),
            size_of::<Port>(),
            size_of::<Backend>(),
            size_of::<NatAddress>(),
            size_of::<Connection>(),
            size_of::<ConnectionCounters>(),
            size_of::<ConnectionDropKey>(),
            size_of::<AttachmentDropKey>(),
            size_of::<FlowKey<V4>>(),
            size_of::<Flow<V4>>(),
            size_of::<FlowKey<V6>>(),
            size_of::<Flow<V6>>(),
            size_of::<Bucket<V4>>(),
            size_of::<Bucket<V6>>(),
            size_of::<FlowTableUsage>(),
            size_of::<Limits>(),
            size_of::<ConnectionUsage>(),
            size_of::<RejectMeters>(),
            size_of::<FragmentRecord>(),
            size_of::<IdentificationState>(),
        ];
        assert_eq!(
            sizes,
            [
                24, 16, 20, 16, 8, 32, 48, 20, 32, 48, 8, 8, 16, 44, 40, 68, 256, 512, 64, 32, 64,
                16, 16, 24
            ]
        );
        assert_eq!((DropReason::COUNT, Statistic::COUNT), (44, 8));
    }
}
