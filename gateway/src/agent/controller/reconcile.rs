//! Reconciliation: makes the maps equal to desired and observed state.

use anyhow::Result;
use log::{debug, warn};

use crate::{
    agent::{
        controller::{Controller, Datapath},
        flow_gc::DepartedBackends,
    },
    compile::{
        capacity::CapacityError,
        compile_cache::Delta,
        dirty::DirtyObjects,
        observed::Observed,
        plan::{Plan, plan},
    },
    model::State,
};

impl Controller {
    /// Compiles what may have changed of desired and observed state, and writes the difference to the maps.
    ///
    /// # Errors
    /// When the kernel refuses a write. Writes that were made stay, and the next call compiles everything again.
    pub fn reconcile(&mut self) -> Result<()> {
        if self.datapath.needs_full_resync {
            let claims = self.all_claims();
            self.observed.conflict_detector.retain(claims);
        }
        let (state, observed) = (&self.desired.state, &mut self.observed);
        let datapath = &mut self.datapath;
        for key in observed.conflict_detector.take_changed() {
            let tentative = observed.conflict_detector.is_tentative(&key);
            observed.compiled.observe_tentative(
                &key,
                tentative,
                state,
                &mut datapath.dirty_objects,
            );
        }
        // Whatever changes the availability of a backend makes its service dirty.
        let changed = datapath.dirty_objects.services.iter().cloned();
        observed.services_to_assess.extend(changed);
        if datapath.needs_full_resync {
            let all = state.services.keys().cloned();
            observed.services_to_assess.extend(all);
        }
        if datapath.reconcile(state, &observed.compiled)? {
            self.update_draining_claims();
        }
        Ok(())
    }

    /// Forgets departed backends whose flows have been terminated.
    pub(super) fn drop_departed(&mut self, notified: &DepartedBackends) {
        let departed = &mut self.datapath.departed_backends;
        departed.retain(|key, _| !notified.contains_key(key));
    }
}

impl Datapath {
    /// Compiles the dirty objects, or everything after a failure, and applies the plan. Returns false if nothing was to
    /// be compiled.
    fn reconcile(&mut self, state: &State, observed: &Observed) -> Result<bool> {
        let dirty = std::mem::take(&mut self.dirty_objects);
        let rebuild = self.needs_full_resync;
        if !rebuild && dirty.is_empty() {
            return Ok(false);
        }
        // Both are reset when the plan has been applied.
        self.needs_full_resync = true;
        self.in_sync = false;
        let mut delta = self.compile(state, observed, dirty, rebuild);
        let current = &self.map_snapshot;
        self.draining.keep(state, observed, current, &mut delta);
        self.report_capacity_errors();
        let plan = plan(&delta.old, &delta.new);
        if !plan.is_empty() {
            self.apply(&plan, &delta)?;
        }
        if rebuild {
            self.compile_cache.commit_rebuilt_allocations();
        } else {
            self.compile_cache.commit_allocations();
        }
        self.needs_full_resync = false;
        self.in_sync = true;
        Ok(true)
    }

    fn compile(
        &mut self,
        state: &State,
        observed: &Observed,
        dirty: DirtyObjects,
        rebuild: bool,
    ) -> Delta {
        let (cache, snapshot) = (&mut self.compile_cache, &self.map_snapshot);
        if rebuild {
            cache.rebuild(state, observed, snapshot)
        } else {
            cache.update(state, observed, snapshot, dirty)
        }
    }

    /// Logs which objects did not fit into the maps, if that changed.
    fn report_capacity_errors(&mut self) {
        let errors = self.compile_cache.capacity_errors();
        let errors: Vec<CapacityError> = errors.cloned().collect();
        if errors == self.capacity_errors {
            return;
        }
        self.capacity_errors = errors;
        for error in &self.capacity_errors {
            warn!("compile: map full error=\"{error}\"");
        }
    }

    /// Applies a plan, and wakes flow GC if it may have revoked flows.
    pub(super) fn apply(&mut self, plan: &Plan, delta: &Delta) -> Result<()> {
        debug!("controller: applying plan writes={}", plan.len());
        self.record_departed(delta);
        let ends_flows = !plan.revoke.is_empty() || plan.removes_backends(&self.map_snapshot);
        // Also those of a plan that fails, which may be applied in part.
        plan.add_address_changes(&mut self.address_changes);
        self.maps.apply_plan(plan, &mut self.map_snapshot)?;
        if ends_flows || !self.departed_backends.is_empty() {
            self.flows_revoked.notify_one();
        }
        Ok(())
    }

    /// Records the next hops of backends that leave their slots, so that flow GC can send them resets for their flows.
    fn record_departed(&mut self, delta: &Delta) {
        for (slot, backend) in &delta.old.backends {
            let is_kept = delta
                .new
                .backends
                .get(slot)
                .is_some_and(|now| now.generation == backend.generation && now.resource != 0);
            if backend.resource != 0 && backend.reachable != 0 && !is_kept {
                #[expect(clippy::cast_possible_truncation, reason = "flows hold the lower bits")]
                let key = (*slot, backend.generation as u16);
                self.departed_backends
                    .insert(key, (backend.egress_slot, backend.mac.mac()));
            }
        }
    }
}
