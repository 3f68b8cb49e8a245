//! Invariants of the whole state: references, uniqueness and ranges. Operations keep them. A start and a restore check
//! them before any stored object is used.
//!
//! Quotas are not invariants: they may be lowered below the number of objects that a tenant has.

mod addresses;
mod objects;

use std::collections::BTreeMap;

use crate::model::{
    Object,
    invariants::{
        addresses::{NetworkMembers, add_member},
        objects::SeenValues,
    },
};

/// Violation of an invariant by a stored object. No sequence of operations creates such an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {key} can't be used: {detail}")]
pub struct Violation {
    /// Key of the object in the store.
    pub key: String,
    /// Description of the violated invariant.
    pub detail: String,
}

impl Violation {
    fn new(object: &Object, detail: impl Into<String>) -> Self {
        Self {
            key: object.key(),
            detail: detail.into(),
        }
    }
}

/// Checks the objects of a state. Time and memory are proportional to the size of the objects, whatever they contain.
///
/// # Errors
/// Fails with the first violation.
pub fn check(objects: &[Object]) -> Result<(), Violation> {
    let mut seen = SeenValues::default();
    for object in objects {
        seen.add(object)?;
    }
    let mut members = BTreeMap::new();
    for object in objects {
        seen.check_references(object)?;
        add_member(object, &mut members);
    }
    members.values_mut().try_for_each(NetworkMembers::check)
}

#[cfg(test)]
mod tests;
