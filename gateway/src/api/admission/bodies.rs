//! The memory that large bodies may take, all together.

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

/// Bodies up to this size are not counted: connections are, and each has one body at a time.
pub(in crate::api) const MAX_SMALL_BODY: usize = 64 << 10;
/// Large bodies that are read, decoded or applied at the same time: of tenants, and of the operator besides.
const MAX_LARGE_BODIES: usize = 6;
/// Large bodies of one principal, and of one tenant, at the same time.
const MAX_LARGE_BODIES_PER_CALLER: usize = 2;
/// Bytes of tenants' large bodies at the same time, in units: as many of the largest as there are places.
const TENANT_UNITS: usize = 24 << 10;
/// Bytes of the operator's large bodies at the same time, in units: the largest.
const OPERATOR_UNITS: usize = 48 << 10;
/// Bytes of a unit.
const UNIT_BYTES: usize = 1 << 10;
/// Time until another try is worthwhile.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bytes a second at which a body must arrive once it is large.
const MIN_RATE: usize = 16 << 10;
/// Time for which a large body may fall behind [`LEAST_RATE`].
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// Room for large bodies. The operator's is separate: tenants can't use it up.
#[derive(Debug)]
pub(super) struct BodyBudget {
    tenants: BodyPool,
    operator: BodyPool,
    per_caller: Arc<ConcurrencyLimiter>,
}

/// Room for a number of bodies with a number of bytes.
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

/// The room that one body takes, until it is dropped: held while the body is read, decoded and carried out.
#[derive(Debug)]
pub(in crate::api) struct BodyPermit {
    bodies: Arc<BodyBudget>,
    caller: Principal,
    /// What a large body holds; nothing for a small one.
    large: Option<LargeBody>,
}

#[derive(Debug)]
struct LargeBody {
    units: OwnedSemaphorePermit,
    /// Time at which the body became large, and its size then.
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

    /// Takes room for a body of this size in all. Room is taken as bytes come, so that whoever announces many
    /// and sends none keeps nobody out.
    ///
    /// # Errors
    /// [`Code::RateLimited`] when the caller or its tenant has too many large bodies under way,
    /// [`Code::Overloaded`] when all have.
    pub(in crate::api) fn reserve(&mut self, size: usize) -> Result<(), ApiError> {
        if size <= MAX_SMALL_BODY {
            return Ok(());
        }
        let overloaded = || {
            let detail =
                "the gateway handles as many large requests as it can: try again in a second";
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
            let detail = "too many large requests are under way for this caller or its tenant: send them one \
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

    /// Returns the time by which more of a body must have arrived of which `size` bytes have; none if it is small. A
    /// large body holds room that others need, and must not stall.
    pub(in crate::api) fn deadline(&self, size: usize) -> Option<Instant> {
        let (since, first) = self.large.as_ref()?.started_at;
        let bytes = u32::try_from(size.saturating_sub(first)).unwrap_or(u32::MAX);
        let rate = u32::try_from(MIN_RATE).unwrap_or(u32::MAX);
        Some(since + GRACE_PERIOD + Duration::from_secs(1) * bytes / rate)
    }

    /// Says whether the body is large.
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
    fn a_tenant_has_two_large_bodies_at_once_and_small_ones_are_free() {
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
    fn all_bodies_together_are_bounded() {
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
        // The operator's bodies take nothing from tenants either.
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
