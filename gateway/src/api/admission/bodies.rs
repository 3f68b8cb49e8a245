//! The memory budget of large bodies.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::concurrency::{ConcurrencyLimiter, ConcurrencyPermit};
use crate::{
    api::response::ApiError,
    memory,
    model::{Principal, Problem, ProblemCode},
};

/// Largest size of a body that is not counted. The number of connections bounds small bodies, one each.
pub(in crate::api) const MAX_SMALL_BODY: usize = 64 << 10;
/// Large bodies that are read, decoded or applied at the same time. Tenants and the operator have this number each.
const MAX_LARGE_BODIES: usize = 6;
/// Large bodies of one principal, or of one tenant, at the same time.
const MAX_LARGE_BODIES_PER_CALLER: usize = 2;
/// Memory of tenants' large bodies, in units: [`MAX_LARGE_BODIES`] of the largest size.
const TENANT_UNITS: usize = 24 << 10;
/// Memory of the operator's large bodies, in units: one of the largest size.
const OPERATOR_UNITS: usize = 48 << 10;
/// Size of a unit in bytes.
const UNIT_BYTES: usize = 1 << 10;
/// Value of `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Minimum rate at which a large body must arrive, in bytes a second.
const MIN_RATE: usize = 16 << 10;
/// Time for which a large body may fall behind [`MIN_RATE`].
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// The budget of large bodies. The operator has a pool of its own, which tenants can't exhaust.
#[derive(Debug)]
pub(super) struct BodyBudget {
    tenants: BodyPool,
    operator: BodyPool,
    per_caller: Arc<ConcurrencyLimiter>,
}

/// A pool of body slots and memory units.
#[derive(Debug)]
struct BodyPool {
    slots: Arc<Semaphore>,
    units: Arc<Semaphore>,
}

impl BodyPool {
    fn new(units: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_LARGE_BODIES)),
            units: Arc::new(Semaphore::new(units)),
        }
    }
}

impl BodyBudget {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            tenants: BodyPool::new(TENANT_UNITS),
            operator: BodyPool::new(OPERATOR_UNITS),
            per_caller: ConcurrencyLimiter::new(
                MAX_LARGE_BODIES_PER_CALLER,
                MAX_LARGE_BODIES_PER_CALLER,
            ),
        })
    }
}

/// The reservation of one body, which is held while the body is read, decoded and applied.
#[derive(Debug)]
pub(in crate::api) struct BodyPermit {
    bodies: Arc<BodyBudget>,
    caller: Principal,
    /// The reservation of a large body; `None` for a small one.
    large: Option<LargeBody>,
}

#[derive(Debug)]
struct LargeBody {
    units: OwnedSemaphorePermit,
    /// The time at which the body became large, and its size then.
    started_at: (Instant, usize),
    _slot: OwnedSemaphorePermit,
    _caller_permit: ConcurrencyPermit,
}

impl BodyPermit {
    pub(super) fn new(bodies: Arc<BodyBudget>, caller: &Principal) -> Self {
        Self {
            bodies,
            caller: caller.clone(),
            large: None,
        }
    }

    /// Extends the reservation to a body of `size` bytes in total. Memory is reserved as bytes arrive, so a client that
    /// announces a large body and sends nothing blocks no other client.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`] if the caller or its tenant has too many large bodies in progress,
    /// [`ProblemCode::Overloaded`] if all callers together have.
    pub(in crate::api) fn reserve(&mut self, size: usize) -> Result<(), ApiError> {
        if size <= MAX_SMALL_BODY {
            return Ok(());
        }
        let overloaded = || {
            let detail = "too many large requests are in progress: try again in a second";
            ApiError::with_retry_after(
                Problem::new(ProblemCode::Overloaded, detail),
                RETRY_AFTER.as_secs(),
            )
        };
        let pool = if self.caller.is_operator() {
            &self.bodies.operator
        } else {
            &self.bodies.tenants
        };
        let units = |count: usize| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            Arc::clone(&pool.units)
                .try_acquire_many_owned(count)
                .map_err(|_| overloaded())
        };
        let wanted_units = size.div_ceil(UNIT_BYTES);
        if let Some(large) = &mut self.large {
            let has = large.units.num_permits();
            if wanted_units > has {
                large.units.merge(units(wanted_units - has)?);
            }
            return Ok(());
        }
        let caller_permit = ConcurrencyLimiter::acquire(&self.bodies.per_caller, &self.caller).ok_or_else(|| {
            let detail = "too many large requests of this caller or its tenant are in progress: send them one \
                          after the other";
            ApiError::with_retry_after(Problem::new(ProblemCode::RateLimited, detail), RETRY_AFTER.as_secs())
        })?;
        let slot = Arc::clone(&pool.slots);
        let slot = slot.try_acquire_owned().map_err(|_| overloaded())?;
        self.large = Some(LargeBody {
            units: units(wanted_units)?,
            started_at: (Instant::now(), size),
            _slot: slot,
            _caller_permit: caller_permit,
        });
        Ok(())
    }

    /// Returns the time by which the next part of a body must arrive, after `size` bytes of it; `None` for a small
    /// body. A large body must not stall, since it holds memory that others need.
    pub(in crate::api) fn deadline(&self, size: usize) -> Option<Instant> {
        let (since, first) = self.large.as_ref()?.started_at;
        let bytes = u32::try_from(size.saturating_sub(first)).unwrap_or(u32::MAX);
        let rate = u32::try_from(MIN_RATE).unwrap_or(u32::MAX);
        Some(since + GRACE_PERIOD + Duration::from_secs(1) * bytes / rate)
    }

    /// Returns true if the body is large.
    pub(in crate::api) const fn is_large(&self) -> bool {
        self.large.is_some()
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        if self.large.is_some() {
            memory::trim_soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, Role};

    fn caller(name: &str, tenant: &str) -> Principal {
        let roles = [(tenant.parse().unwrap(), Role::Viewer)];
        Principal {
            identity: name.to_owned(),
            name: name.to_owned(),
            from: "192.0.2.1".to_owned(),
            access: Access::Tenants(roles.into()),
        }
    }

    #[test]
    fn large_bodies_are_limited_per_tenant_and_small_ones_are_not() {
        let bodies = BodyBudget::new();
        let mut permits: Vec<BodyPermit> = ["one", "two", "three"]
            .map(|name| BodyPermit::new(Arc::clone(&bodies), &caller(name, "a")))
            .into();
        assert!(
            permits
                .iter_mut()
                .all(|permit| permit.reserve(MAX_SMALL_BODY).is_ok())
        );
        assert!(
            permits[0].reserve(MAX_SMALL_BODY + 1).is_ok() && permits[1].reserve(1 << 20).is_ok()
        );
        assert!(permits[2].reserve(MAX_SMALL_BODY + 1).is_err());
        let mut other = BodyPermit::new(Arc::clone(&bodies), &caller("four", "b"));
        assert!(other.reserve(1 << 20).is_ok());
        permits.truncate(1);
        let mut third = BodyPermit::new(Arc::clone(&bodies), &caller("three", "a"));
        assert!(third.reserve(1 << 20).is_ok());
    }

    #[test]
    fn total_memory_of_bodies_is_bounded() {
        let bodies = BodyBudget::new();
        let operator = Principal::operator("operator", "socket");
        let mut first = BodyPermit::new(Arc::clone(&bodies), &operator);
        assert!(first.reserve(32 << 20).is_ok() && first.reserve(36 << 20).is_ok());
        let mut second = BodyPermit::new(Arc::clone(&bodies), &operator);
        assert!(second.reserve(12 << 20).is_ok());
        assert!(second.reserve((12 << 20) + 1).is_err());
        drop(first);
        assert!(second.reserve(48 << 20).is_ok());
    }

    #[test]
    fn the_operator_has_a_budget_of_its_own() {
        let bodies = BodyBudget::new();
        let hold = |tenant: &str| {
            let mut permit = BodyPermit::new(Arc::clone(&bodies), &caller(tenant, tenant));
            permit.reserve(4 << 20).map(|()| permit)
        };
        let permits: Vec<_> = ["a", "a", "b", "b", "c", "c"]
            .into_iter()
            .filter_map(|tenant| hold(tenant).ok())
            .collect();
        assert_eq!(permits.len(), MAX_LARGE_BODIES);
        assert!(hold("d").is_err());
        let operator = Principal::operator("operator", "socket");
        let mut permit = BodyPermit::new(Arc::clone(&bodies), &operator);
        assert!(permit.reserve(48 << 20).is_ok());
        // The operator's bodies do not use the tenants' pool either.
        drop(permits);
        assert!(hold("d").is_ok());
    }

    #[test]
    fn only_large_bodies_have_a_minimum_rate() {
        let bodies = BodyBudget::new();
        let mut permit = BodyPermit::new(bodies, &caller("one", "a"));
        permit.reserve(MAX_SMALL_BODY).unwrap();
        assert_eq!(permit.deadline(MAX_SMALL_BODY), None);
        let before = Instant::now();
        permit.reserve(MAX_SMALL_BODY + 1).unwrap();
        let deadline = permit.deadline(MAX_SMALL_BODY + 1).unwrap();
        assert!(deadline >= before + GRACE_PERIOD && deadline <= Instant::now() + GRACE_PERIOD);
        let later = permit.deadline(MAX_SMALL_BODY + 1 + 3 * MIN_RATE).unwrap();
        assert_eq!(later - deadline, Duration::from_secs(3));
    }
}
