//! The memory that large bodies may take, all together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counts::{Counts, Place};
use crate::{
    api::response::Refusal,
    memory,
    model::{Code, Principal, Problem},
};

/// Bodies up to this size are not counted: connections are, and each has one body at a time.
pub(in crate::api) const SMALL: usize = 64 << 10;
/// Large bodies that are read, decoded or applied at the same time: of tenants, and of the operator besides.
const MOST_AT_ONCE: usize = 6;
/// Large bodies of one principal, and of one tenant, at the same time.
const MOST_OF_ONE: usize = 2;
/// Bytes of tenants' large bodies at the same time, in units: as many of the largest as there are places.
const TENANTS_UNITS: usize = 24 << 10;
/// Bytes of the operator's large bodies at the same time, in units: the largest.
const OPERATORS_UNITS: usize = 48 << 10;
/// Bytes of a unit.
const UNIT: usize = 1 << 10;
/// Time until another try is worthwhile.
const LATER: Duration = Duration::from_secs(1);
/// Bytes a second at which a body must arrive once it is large.
const LEAST_RATE: usize = 16 << 10;
/// Time for which a large body may fall behind [`LEAST_RATE`].
const GRACE: Duration = Duration::from_secs(5);

/// Room for large bodies. The operator's is separate: tenants can't use it up.
#[derive(Debug)]
pub(super) struct Bodies {
    tenants: Pool,
    operator: Pool,
    shares: Arc<Counts>,
}

/// Room for a number of bodies with a number of bytes.
#[derive(Debug)]
struct Pool {
    places: Arc<Semaphore>,
    units: Arc<Semaphore>,
}

impl Pool {
    fn new(units: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST_AT_ONCE)),
            units: Arc::new(Semaphore::new(units)),
        }
    }
}

impl Bodies {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            tenants: Pool::new(TENANTS_UNITS),
            operator: Pool::new(OPERATORS_UNITS),
            shares: Counts::new(MOST_OF_ONE, MOST_OF_ONE),
        })
    }
}

/// The room that one body takes, until it is dropped: held while the body is read, decoded and carried out.
#[derive(Debug)]
pub(in crate::api) struct BodyPermit {
    bodies: Arc<Bodies>,
    caller: Principal,
    /// What a large body holds; nothing for a small one.
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    units: OwnedSemaphorePermit,
    /// Time at which the body became large, and its size then.
    since: (Instant, usize),
    _place: OwnedSemaphorePermit,
    _share: Place,
}

impl BodyPermit {
    pub(super) fn new(bodies: Arc<Bodies>, caller: &Principal) -> Self {
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
    pub(in crate::api) fn grow(&mut self, size: usize) -> Result<(), Refusal> {
        if size <= SMALL {
            return Ok(());
        }
        let busy = || {
            let detail =
                "the gateway handles as many large requests as it can: try again in a second";
            Refusal::later(Problem::new(Code::Overloaded, detail), LATER.as_secs())
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
                .map_err(|_| busy())
        };
        let wanted = size.div_ceil(UNIT);
        if let Some(large) = &mut self.large {
            let has = large.units.num_permits();
            if wanted > has {
                large.units.merge(units(wanted - has)?);
            }
            return Ok(());
        }
        let share = Counts::take(&self.bodies.shares, &self.caller).ok_or_else(|| {
            let detail = "too many large requests are under way for this caller or its tenant: send them one \
                          after the other";
            Refusal::later(Problem::new(Code::RateLimited, detail), LATER.as_secs())
        })?;
        let place = Arc::clone(&pool.places);
        let place = place.try_acquire_owned().map_err(|_| busy())?;
        self.large = Some(Large {
            units: units(wanted)?,
            since: (Instant::now(), size),
            _place: place,
            _share: share,
        });
        Ok(())
    }

    /// Returns the time by which more of a body must have arrived of which `size` bytes have; none if it is small. A
    /// large body holds room that others need, and must not stall.
    pub(in crate::api) fn deadline(&self, size: usize) -> Option<Instant> {
        let (since, first) = self.large.as_ref()?.since;
        let bytes = u32::try_from(size.saturating_sub(first)).unwrap_or(u32::MAX);
        let rate = u32::try_from(LEAST_RATE).unwrap_or(u32::MAX);
        Some(since + GRACE + Duration::from_secs(1) * bytes / rate)
    }

    /// Says whether the body is large.
    pub(in crate::api) const fn is_large(&self) -> bool {
        self.large.is_some()
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        if self.large.is_some() {
            memory::give_back_soon();
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
        let bodies = Bodies::new();
        let mut permits: Vec<BodyPermit> = ["one", "two", "three"]
            .map(|name| BodyPermit::new(Arc::clone(&bodies), &caller(name, "a")))
            .into();
        assert!(permits.iter_mut().all(|permit| permit.grow(SMALL).is_ok()));
        assert!(permits[0].grow(SMALL + 1).is_ok() && permits[1].grow(1 << 20).is_ok());
        assert!(permits[2].grow(SMALL + 1).is_err());
        let mut other = BodyPermit::new(Arc::clone(&bodies), &caller("four", "b"));
        assert!(other.grow(1 << 20).is_ok());
        permits.truncate(1);
        let mut third = BodyPermit::new(Arc::clone(&bodies), &caller("three", "a"));
        assert!(third.grow(1 << 20).is_ok());
    }

    #[test]
    fn all_bodies_together_are_bounded() {
        let bodies = Bodies::new();
        let operator = Principal::operator("operator", "socket");
        let mut first = BodyPermit::new(Arc::clone(&bodies), &operator);
        assert!(first.grow(32 << 20).is_ok() && first.grow(36 << 20).is_ok());
        let mut second = BodyPermit::new(Arc::clone(&bodies), &operator);
        assert!(second.grow(12 << 20).is_ok());
        assert!(second.grow((12 << 20) + 1).is_err());
        drop(first);
        assert!(second.grow(48 << 20).is_ok());
    }

    #[test]
    fn tenants_that_use_all_their_room_leave_the_operators() {
        let bodies = Bodies::new();
        let hold = |tenant: &str| {
            let mut permit = BodyPermit::new(Arc::clone(&bodies), &caller(tenant, tenant));
            permit.grow(4 << 20).map(|()| permit)
        };
        let held: Vec<_> = ["a", "a", "b", "b", "c", "c"]
            .into_iter()
            .filter_map(|tenant| hold(tenant).ok())
            .collect();
        assert_eq!(held.len(), MOST_AT_ONCE);
        assert!(hold("d").is_err());
        let operator = Principal::operator("operator", "socket");
        let mut permit = BodyPermit::new(Arc::clone(&bodies), &operator);
        assert!(permit.grow(48 << 20).is_ok());
        // The operator's bodies take nothing from tenants either.
        drop(held);
        assert!(hold("d").is_ok());
    }

    #[test]
    fn a_large_body_must_arrive_at_the_least_rate_and_a_small_one_need_not() {
        let bodies = Bodies::new();
        let mut permit = BodyPermit::new(bodies, &caller("one", "a"));
        permit.grow(SMALL).unwrap();
        assert_eq!(permit.deadline(SMALL), None);
        let before = Instant::now();
        permit.grow(SMALL + 1).unwrap();
        let deadline = permit.deadline(SMALL + 1).unwrap();
        assert!(deadline >= before + GRACE && deadline <= Instant::now() + GRACE);
        let later = permit.deadline(SMALL + 1 + 3 * LEAST_RATE).unwrap();
        assert_eq!(later - deadline, Duration::from_secs(3));
    }
}
