//! Admission of requests: how many of whom, how much of their bodies at once, and how many event streams.
//!
//! Every limit is kept for the principal and for one of its tenants, so that neither one user nor one tenant with
//! many users takes what is there for all. A tenant can give anybody a role in it; a principal that has several
//! tenants is therefore refused only when none of them has room, or else a tenant could use up its own room to have
//! the users of others refused.

mod bodies;
mod counts;
mod rate;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::Method;

use self::{
    bodies::Bodies,
    rate::{Buckets, Rate},
};
use crate::{
    api::{response::Refusal, source::Source},
    config::ApiLimits,
    model::{Access, Code, Name, Principal, Problem},
};

pub(super) use self::{
    bodies::BodyPermit,
    counts::{Counts, Place},
};

/// A burst of changes, in seconds of their rate.
const CHANGE_BURST: u32 = 4;
/// A burst of other requests, in seconds of their rate.
const READ_BURST: u32 = 5;
/// Changes that one application of a manifest counts for: it takes a copy of the whole state.
const MANIFEST_COST: u32 = 10;

/// New connections a second of one source, and a burst of them. Each costs a TLS handshake.
const CONNECTIONS: Rate = Rate {
    per_second: 100,
    burst: 400,
};

/// State of admission, shared by all listeners.
#[derive(Debug)]
pub struct Admission {
    rates: Mutex<Rates>,
    bodies: Arc<Bodies>,
    streams: Arc<Counts>,
}

#[derive(Debug)]
struct Rates {
    changes: Buckets<String>,
    reads: Buckets<String>,
    tenant_changes: Buckets<Name>,
    tenant_reads: Buckets<Name>,
    unauthenticated: Buckets<Source>,
    connections: Buckets<Source>,
}

impl Admission {
    /// Makes one in which nothing was admitted yet.
    #[must_use]
    pub fn new(limits: &ApiLimits) -> Arc<Self> {
        let rate = |per_second: u32, seconds: u32| Rate {
            per_second,
            burst: per_second.saturating_mul(seconds),
        };
        Arc::new(Self {
            rates: Mutex::new(Rates {
                changes: Buckets::new(rate(limits.changes_per_second, CHANGE_BURST)),
                reads: Buckets::new(rate(limits.reads_per_second, READ_BURST)),
                tenant_changes: Buckets::new(rate(limits.tenant_changes_per_second, CHANGE_BURST)),
                tenant_reads: Buckets::new(rate(limits.tenant_reads_per_second, READ_BURST)),
                unauthenticated: Buckets::new(rate(limits.unauthenticated_per_second, READ_BURST)),
                connections: Buckets::new(CONNECTIONS),
            }),
            bodies: Bodies::new(),
            streams: Counts::new(limits.streams_per_principal, limits.streams_per_tenant),
        })
    }

    /// Admits a request of an authenticated caller. `tenant` is the one in the path.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the time to wait.
    pub(super) fn request(
        &self,
        caller: &Principal,
        method: &Method,
        path: &str,
        tenant: Option<&Name>,
    ) -> Result<(), Refusal> {
        let Access::Tenants(roles) = &caller.access else {
            return Ok(());
        };
        let now = Instant::now();
        let rates = &mut *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = method == Method::GET || method == Method::HEAD;
        let (own, of_tenants, tokens) = if reads {
            (&mut rates.reads, &mut rates.tenant_reads, 1)
        } else {
            let tokens = if path == "/v1/apply" {
                MANIFEST_COST
            } else {
                1
            };
            (&mut rates.changes, &mut rates.tenant_changes, tokens)
        };
        let what = if reads { "requests" } else { "changes" };
        own.take(caller.identity.clone(), tokens, now)
            .map_err(|wait| too_many(&format!("{} sends too many {what}", caller.name), wait))?;
        let mut least: Option<Duration> = None;
        let named = tenant.filter(|tenant| roles.contains_key(*tenant));
        let candidates = roles.keys().filter(|name| named.is_none_or(|n| n == *name));
        for tenant in candidates {
            match of_tenants.take(tenant.clone(), tokens, now) {
                Ok(()) => return Ok(()),
                Err(wait) => least = Some(least.map_or(wait, |least| least.min(wait))),
            }
        }
        match least {
            None => Ok(()),
            Some(wait) => Err(too_many(
                &format!("its tenant's users send too many {what}"),
                wait,
            )),
        }
    }

    /// Counts a request whose sender did not authenticate.
    ///
    /// # Errors
    /// [`Code::RateLimited`] when its source sends too many of them.
    pub(super) fn unauthenticated(&self, source: Source) -> Result<(), Refusal> {
        let rates = &mut *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates
            .unauthenticated
            .take(source, 1, Instant::now())
            .map_err(|wait| {
                too_many(
                    "this address sends too many requests without a valid credential",
                    wait,
                )
            })
    }

    /// Counts a new connection; says whether its source may have it.
    pub(super) fn connection(&self, source: Source) -> bool {
        let rates = &mut *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.connections.take(source, 1, Instant::now()).is_ok()
    }

    /// Begins to admit a body. It holds nothing yet.
    pub(super) fn body(&self, caller: &Principal) -> BodyPermit {
        BodyPermit::new(Arc::clone(&self.bodies), caller)
    }

    /// Admits an event stream, until the place is dropped.
    ///
    /// # Errors
    /// [`Code::RateLimited`].
    pub(super) fn stream(&self, caller: &Principal) -> Result<Place, Refusal> {
        Counts::take(&self.streams, caller).ok_or_else(|| {
            let wait = Duration::from_secs(10);
            too_many("too many event streams are open: end one of them", wait)
        })
    }
}

fn too_many(what: &str, wait: Duration) -> Refusal {
    let seconds = wait.as_secs() + 1;
    let detail = format!("{what}: try again after {seconds} s");
    Refusal::later(Problem::new(Code::RateLimited, detail), seconds)
}
