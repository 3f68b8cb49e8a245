//! State of a compilation: its inputs, and the entries that are compiled so far. Pure.
//!
//! The compilation of each kind of object is in [`network`], [`service`] and [`endpoint`].
//!
//! [`network`]: crate::compile::network
//! [`service`]: crate::compile::service
//! [`endpoint`]: crate::compile::endpoint

use std::net::IpAddr;

use crate::{
    compile::{
        capacity::CapacityError,
        compile_cache::{CompileCache, EntryKey, ObjectId},
        map_snapshot::MapSnapshot,
        observed::Observed,
    },
    model::{Network, Reference, State},
};

/// Compiler of objects, one by one, into a snapshot.
pub(super) struct Compiler<'a> {
    pub(super) state: &'a State,
    pub(super) observed: &'a Observed,
    pub(super) current: &'a MapSnapshot,
    pub(super) cache: &'a mut CompileCache,
    pub(super) snapshot: MapSnapshot,
    /// Errors of the object that is being compiled.
    pub(super) capacity_errors: Vec<CapacityError>,
    /// Map entries of the object that is being compiled.
    pub(super) keys: Vec<EntryKey>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(
        state: &'a State,
        observed: &'a Observed,
        current: &'a MapSnapshot,
        cache: &'a mut CompileCache,
    ) -> Self {
        Self {
            state,
            observed,
            current,
            cache,
            snapshot: MapSnapshot::default(),
            capacity_errors: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Returns the compiled contents.
    pub(super) fn into_snapshot(self) -> MapSnapshot {
        self.snapshot
    }

    /// Records that the object that is being compiled has no room in a map.
    pub(super) fn report_full(&mut self, part: String, map: &'static str, capacity: u32) {
        self.capacity_errors.push(CapacityError {
            part,
            map,
            capacity,
        });
    }

    /// Records the entries and the errors of the object that was compiled last.
    pub(super) fn finish_object(&mut self, owner: ObjectId) {
        let errors = std::mem::take(&mut self.capacity_errors);
        if errors.is_empty() {
            self.cache.capacity_errors.remove(&owner);
        } else {
            self.cache.capacity_errors.insert(owner.clone(), errors);
        }
        let keys = std::mem::take(&mut self.keys);
        self.cache.pending.push((owner, keys));
    }

    /// Returns true if the host itself has the address in the network. The address stays the host's then.
    pub(super) fn is_host_address(
        &self,
        reference: &Reference,
        network: &Network,
        address: IpAddr,
    ) -> bool {
        let host = &self.observed.host;
        host.contains(address)
            && host
                .conflict(self.state, reference, network, address)
                .is_some()
    }

    /// Returns true if another host may have the address in the network.
    pub(super) fn is_tentative(&self, network: &Reference, address: IpAddr) -> bool {
        let tentative = &self.observed.tentative;
        !tentative.is_empty() && tentative.contains(&(network.clone(), address))
    }
}
