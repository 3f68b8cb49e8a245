//! Layouts of the BPF maps: what the agent writes and the data path reads.
//!
//! All are plain old data, without padding bytes that could differ between equal keys. The agent is
//! the only writer of everything but the flows; a value of a hash map is replaced whole, an array's
//! is made so that a reader who sees half of a change is caught by a generation or an owner field.

mod access;
mod config;
mod counters;
mod identification;
mod limits;
pub mod name;

pub use access::{ConfigMaps, Counters, MapValueRef};
pub use config::{
    ATTACHMENT_BUCKETS, AddressConflict, AddressKey, Attachment, Backend, Connection, Egress,
    LocalAddress, MAX_ATTACHMENTS, MAX_BACKENDS, MAX_CONNECTIONS, MAX_MAGLEV_ENTRIES,
    MAX_NAT_ADDRESSES, NO_CONNECTION, NatAddress, Port, PortKey, attachment_index,
};
pub use counters::{ConnectionCounters, ConnectionDropKey, Statistic};
pub use identification::{IDENTIFICATION_BUCKETS, IdentificationSpace, IdentificationState};
pub use limits::{ConnectionUsage, Limits, NO_CONNECTION_USAGE};

/// Changes whenever a layout below, or the meaning of a field, does. Maps of another version are
/// never reused.
pub const LAYOUT_VERSION: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        drop_reason::DropReason,
        family::{V4, V6},
        flow::{Flow, FlowKey, FragmentRecord},
    };

    /// A size that changes must change `LAYOUT_VERSION` with it.
    #[test]
    fn layout_version_changes_with_sizes() {
        assert_eq!(LAYOUT_VERSION, 6);
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
            size_of::<FlowKey<V4>>(),
            size_of::<Flow<V4>>(),
            size_of::<FlowKey<V6>>(),
            size_of::<Flow<V6>>(),
            size_of::<Limits>(),
            size_of::<ConnectionUsage>(),
            size_of::<FragmentRecord>(),
            size_of::<IdentificationState>(),
        ];
        assert_eq!(
            sizes,
            [
                24, 16, 20, 16, 8, 32, 40, 20, 12, 48, 8, 16, 56, 40, 80, 32, 64, 16, 24
            ]
        );
        assert_eq!((DropReason::COUNT, Statistic::COUNT), (39, 9));
    }
}
