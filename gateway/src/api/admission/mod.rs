//! Admission of requests: rate limits, memory limits of bodies, and limits of event streams.
//!
//! Every limit applies to the principal and to one of its tenants, so that neither one user nor one tenant with many
//! users can exhaust shared capacity. A tenant can give anybody a role. A principal with several tenants is therefore
//! refused only if none of them has capacity left. Otherwise a tenant could have users of other tenants refused by
//! using up its own capacity.

mod bodies;
mod concurrency;
mod rate_limit;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::Method;

use self::{
    bodies::BodyBudget,
    rate_limit::{Rate, TokenBuckets},
};
use crate::{
    api::{response::ApiError, source::ClientSource},
    config::ApiLimits,
    model::{Access, Name, Principal, Problem, ProblemCode},
};

pub(super) use self::{
    bodies::BodyPermit,
    concurrency::{ConcurrencyLimiter, ConcurrencyPermit},
};

/// Burst of changes, in seconds of their rate.
const CHANGE_BURST: u32 = 4;
/// Burst of other requests, in seconds of their rate.
const READ_BURST: u32 = 5;
/// Number of changes that applying one manifest counts as, since it copies the whole state.
const MANIFEST_COST: u32 = 10;

/// Rate and burst of new connections of one source. Each costs a TLS handshake.
const CONNECTION_RATE: Rate = Rate {
    per_second: 100,
    burst: 400,
};

/// The state of admission, which all listeners share.
#[derive(Debug)]
pub struct Admission {
    rates: Mutex<Rates>,
    bodies: Arc<BodyBudget>,
    streams: Arc<ConcurrencyLimiter>,
}

#[derive(Debug)]
struct Rates {
    changes: TokenBuckets<String>,
    reads: TokenBuckets<String>,
    tenant_changes: TokenBuckets<Name>,
    tenant_reads: TokenBuckets<Name>,
    unauthenticated: TokenBuckets<ClientSource>,
    connections: TokenBuckets<ClientSource>,
}

impl Admission {
    /// Creates the state with full token buckets and no body or stream in use.
    #[must_use]
    pub fn new(limits: &ApiLimits) -> Arc<Self> {
        let rate = |per_second: u32, seconds: u32| Rate {
            per_second,
            burst: per_second.saturating_mul(seconds),
        };
        Arc::new(Self {
            rates: Mutex::new(Rates {
                changes: TokenBuckets::new(rate(limits.changes_per_second, CHANGE_BURST)),
                reads: TokenBuckets::new(rate(limits.reads_per_second, READ_BURST)),
                tenant_changes: TokenBuckets::new(rate(
                    limits.tenant_changes_per_second,
                    CHANGE_BURST,
                )),
                tenant_reads: TokenBuckets::new(rate(limits.tenant_reads_per_second, READ_BURST)),
                unauthenticated: TokenBuckets::new(rate(
                    limits.unauthenticated_per_second,
                    READ_BURST,
                )),
                connections: TokenBuckets::new(CONNECTION_RATE),
            }),
            bodies: BodyBudget::new(),
            streams: ConcurrencyLimiter::new(
                limits.streams_per_principal,
                limits.streams_per_tenant,
            ),
        })
    }

    /// Charges a request to an authenticated caller and one of its tenants. `tenant` is the one in the path, if any.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`], with the time to wait.
    pub(super) fn check_request(
        &self,
        caller: &Principal,
        method: &Method,
        path: &str,
        tenant: Option<&Name>,
    ) -> Result<(), ApiError> {
        let Access::Tenants(roles) = &caller.access else {
            return Ok(());
        };
        let now = Instant::now();
        let rates = &mut *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = method == Method::GET || method == Method::HEAD;
        let (caller_buckets, tenant_buckets, tokens) = if reads {
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
        caller_buckets
            .charge(caller.identity.clone(), tokens, now)
            .map_err(|wait| {
                rate_limited(&format!("{} sends too many {what}", caller.name), wait)
            })?;
        let mut shortest_wait: Option<Duration> = None;
        let named = tenant.filter(|tenant| roles.contains_key(*tenant));
        let candidates = roles.keys().filter(|name| named.is_none_or(|n| n == *name));
        for tenant in candidates {
            match tenant_buckets.charge(tenant.clone(), tokens, now) {
                Ok(()) => return Ok(()),
                Err(wait) => {
                    shortest_wait = Some(shortest_wait.map_or(wait, |least| least.min(wait)))
                }
            }
        }
        match shortest_wait {
            None => Ok(()),
            Some(wait) => Err(rate_limited(
                &format!("the users of its tenant send too many {what}"),
                wait,
            )),
        }
    }

    /// Charges an unauthenticated request to its source.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`] if the source exceeds its rate.
    pub(super) fn charge_unauthenticated(&self, source: ClientSource) -> Result<(), ApiError> {
        let rates = &mut *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates
            .unauthenticated
            .charge(source, 1, Instant::now())
            .map_err(|wait| {
                rate_limited(
                    "this address sends too many requests without a valid credential",
                    wait,
                )
            })
    }

    /// Charges a new connection to its source. Returns true if the source is within its rate.
    pub(super) fn check_connection(&self, source: ClientSource) -> bool {
        let rates = &mut *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.connections.charge(source, 1, Instant::now()).is_ok()
    }

    /// Returns a permit for a body, which reserves no memory yet.
    pub(super) fn body_permit(&self, caller: &Principal) -> BodyPermit {
        BodyPermit::new(Arc::clone(&self.bodies), caller)
    }

    /// Admits an event stream until the permit is dropped.
    ///
    /// # Errors
    /// [`ProblemCode::RateLimited`].
    pub(super) fn acquire_stream(&self, caller: &Principal) -> Result<ConcurrencyPermit, ApiError> {
        ConcurrencyLimiter::acquire(&self.streams, caller).ok_or_else(|| {
            let wait = Duration::from_secs(10);
            rate_limited("too many event streams are open: close one of them", wait)
        })
    }
}

fn rate_limited(what: &str, wait: Duration) -> ApiError {
    let seconds = wait.as_secs() + 1;
    let detail = format!("{what}: try again after {seconds} s");
    ApiError::with_retry_after(Problem::new(ProblemCode::RateLimited, detail), seconds)
}
