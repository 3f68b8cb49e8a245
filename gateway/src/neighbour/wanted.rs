//! Set of wanted neighbours, for the receiver of messages. Most messages are about others: the receiver drops them
//! without access to the neighbour table.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use crate::neighbour::Neighbour;

/// Neighbours that are wanted.
#[derive(Debug, Default)]
pub struct WantedNeighbours(RwLock<HashSet<Neighbour>>);

impl WantedNeighbours {
    /// Returns true if the neighbour is wanted.
    #[must_use]
    pub fn contains(&self, neighbour: &Neighbour) -> bool {
        let neighbours = self.0.read().unwrap_or_else(PoisonError::into_inner);
        neighbours.contains(neighbour)
    }

    pub(super) fn insert(&self, neighbour: Neighbour) {
        let mut neighbours = self.0.write().unwrap_or_else(PoisonError::into_inner);
        neighbours.insert(neighbour);
    }

    pub(super) fn remove(&self, neighbour: &Neighbour) {
        let mut neighbours = self.0.write().unwrap_or_else(PoisonError::into_inner);
        neighbours.remove(neighbour);
    }
}
