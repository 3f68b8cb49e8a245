//! Error of a map that is full.

/// Part of an object that is missing in the data path because a map is full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map} ({capacity} entries) has no room for {part}: remove unused objects")]
pub struct CapacityError {
    pub(super) part: String,
    pub(super) map: &'static str,
    pub(super) capacity: u32,
}
