//! The memory that large bodies may take, all together.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counts::{Counts, Place};
use crate::{
    api::response::Refusal,
    memory,
    model::{Code, Principal, Problem},
};

/// Bodies up to this size are not counted: connections are, and each has one body at a time.
pub(in crate::api) const SMALL: usize = 64 << 10;
/// Large bodies that are read, decoded or applied at the same time.
const MOST_AT_ONCE: usize = 6;
/// Of these, by one principal and by one tenant.
const MOST_OF_ONE: usize = 2;
/// Bytes of large bodies at the same time, in units: the operator's largest, and some of tenants beside it.
const MOST_UNITS: u32 = 60 << 10;
/// Bytes of a unit.
const UNIT: usize = 1 << 10;
/// Time until another try is worthwhile.
const LATER: Duration = Duration::from_secs(1);

/// Room for large bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    places: Arc<Semaphore>,
    units: Arc<Semaphore>,
    shares: Arc<Counts>,
}

impl Bodies {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(MOST_AT_ONCE)),
            units: Arc::new(Semaphore::new(MOST_UNITS as usize)),
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
        let units = |count: usize| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            Arc::clone(&self.bodies.units)
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
        let place = Arc::clone(&self.bodies.places);
        let place = place.try_acquire_owned().map_err(|_| busy())?;
        self.large = Some(Large {
            units: units(wanted)?,
            _place: place,
            _share: share,
        });
        Ok(())
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
        assert!(first.grow(32 << 20).is_ok() && first.grow(48 << 20).is_ok());
        let mut second = BodyPermit::new(Arc::clone(&bodies), &operator);
        assert!(second.grow(12 << 20).is_ok());
        assert!(second.grow((12 << 20) + 1).is_err());
        drop(first);
        assert!(second.grow(48 << 20).is_ok());
    }
}
