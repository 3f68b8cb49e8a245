//! Who asks, and whether it may: found out before a request's body is read.

use std::{marker::PhantomData, sync::Arc, time::Instant};

use axum::{
    extract::{FromRequestParts, RawPathParams, Request, State as AgentState},
    http::{HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;

use crate::{
    api::{
        Shared, admission::Admission, listener::Seat, request::name_in_path, response::Refusal,
        socket, tls,
    },
    auth::{Bearer, Credential},
    model::{Code, Kind, Name, Permission, Principal, Problem, token::TokenHash},
};

/// A credential that a request was sent with, and the peer's address.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    pub(super) credential: Credential,
    pub(super) from: String,
}

impl Presented {
    /// Refuses a caller whose credential does not give it all of the same access any more. Roles that were added
    /// meanwhile do not matter: any tenant can give a role to anybody.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`].
    pub(super) async fn expect_unchanged(
        &self,
        agent: &Shared,
        caller: &Principal,
    ) -> Result<(), Problem> {
        self.credential.prepare(Timestamp::now());
        let core = agent.core.lock().await;
        let now = self
            .credential
            .principal(&core.state, Timestamp::now(), &self.from);
        drop(core);
        match now {
            Some(now) if now.includes(caller) => Ok(()),
            Some(_) => {
                let detail = "the caller lost a role while the request was sent: send it again";
                Err(Problem::new(Code::Unauthenticated, detail))
            }
            None => Err(unknown()),
        }
    }
}

/// State of the middleware that authenticates.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) agent: Shared,
    pub(super) admission: Arc<Admission>,
}

/// A mark on responses to requests that were authenticated.
#[derive(Clone, Copy)]
struct Authenticated;

/// Authenticates a request, and lets it through if its caller does not send too many.
pub(super) async fn authenticate(
    AgentState(gate): AgentState<Gate>,
    mut request: Request,
    next: Next,
) -> Response {
    let Gate { agent, admission } = gate;
    let came = Came::of(&request);
    let seat = came.seat();
    let (presented, principal) = match presented(&agent, came).await {
        Ok(found) => found,
        Err(problem) => return Refusal::from(problem).into_response(),
    };
    if let Some(seat) = seat
        && principal.require_any_role().is_ok()
    {
        seat.authenticate(&principal);
    }
    let path = request.uri().path();
    let tenant = tenant_in(path);
    let admitted = admission.request(&principal, request.method(), path, tenant.as_ref());
    let mut response = match admitted {
        Err(refusal) => refusal.into_response(),
        Ok(()) => {
            let extensions = request.extensions_mut();
            extensions.insert(Arc::new(principal));
            extensions.insert(presented);
            extensions.insert(admission);
            next.run(request).await
        }
    };
    response.extensions_mut().insert(Authenticated);
    response
}

/// Counts requests from the network that were not authenticated. Beyond the limit of their source they are answered
/// with 429, and the connection is closed.
///
/// A connection on which a request was authenticated and a later one is answered with 401 is closed, too: its credential
/// was revoked or has expired. It loses its share at once.
pub(super) async fn meter_unauthenticated(
    AgentState(admission): AgentState<Arc<Admission>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<tls::Peer>();
    let seat = peer.map(|peer| Arc::clone(&peer.seat));
    let response = next.run(request).await;
    let Some(seat) = seat else {
        return response;
    };
    let known = response.extensions().get::<Authenticated>().is_some();
    let response = if response.status() == StatusCode::UNAUTHORIZED && seat.was_authenticated() {
        seat.revoke();
        closing(response)
    } else {
        response
    };
    if known {
        return response;
    }
    seat.revoke_if_stale(Instant::now());
    if seat.is_authenticated() {
        return response;
    }
    match admission.unauthenticated(seat.source()) {
        Ok(()) => response,
        Err(refusal) => closing(refusal.into_response()),
    }
}

/// Adds `Connection: close`.
fn closing(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// Returns the tenant that a path names.
fn tenant_in(path: &str) -> Option<Name> {
    let rest = path.strip_prefix("/v1/tenants/")?;
    rest.split('/').next()?.parse().ok()
}

/// The parts of a request that its caller is known by.
enum Came {
    Socket(socket::Peer),
    Tls(tls::Peer, Option<HeaderValue>),
    Unknown,
}

impl Came {
    fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        if let Some(peer) = extensions.get::<socket::Peer>() {
            return Self::Socket(*peer);
        }
        match extensions.get::<tls::Peer>() {
            Some(peer) => {
                let header = request.headers().get(header::AUTHORIZATION);
                Self::Tls(peer.clone(), header.cloned())
            }
            None => Self::Unknown,
        }
    }

    fn seat(&self) -> Option<Arc<Seat>> {
        match self {
            Self::Tls(peer, _) => Some(Arc::clone(&peer.seat)),
            Self::Socket(_) | Self::Unknown => None,
        }
    }
}

async fn presented(agent: &Shared, came: Came) -> Result<(Presented, Principal), Problem> {
    let (credential, from) = match came {
        Came::Socket(peer) => (Credential::Operator { uid: peer.uid }, "socket".to_owned()),
        Came::Tls(peer, header) => {
            let from = peer.address.ip().to_canonical().to_string();
            let bearer = header.as_ref().map(|value| {
                let text = value.to_str().ok();
                text.and_then(Bearer::of)
            });
            let credential = match bearer {
                None => peer.credential.ok_or_else(|| {
                    let detail =
                        "say who you are: Authorization: Bearer TOKEN, or a client certificate";
                    Problem::new(Code::Unauthenticated, detail)
                })?,
                Some(Some(Bearer::Token(text))) => Credential::Token(TokenHash::of(text)),
                Some(Some(Bearer::Foreign(text))) => {
                    agent.issuers.verify(text).await.ok_or_else(unknown)?
                }
                Some(None) => {
                    let detail = "the Authorization header must read: Bearer TOKEN";
                    return Err(Problem::new(Code::Unauthenticated, detail));
                }
            };
            (credential, from)
        }
        Came::Unknown => return Err(Problem::new(Code::Internal, "it is not known who asks")),
    };
    credential.prepare(Timestamp::now());
    let core = agent.core.lock().await;
    let principal = credential.principal(&core.state, Timestamp::now(), &from);
    let principal = principal.ok_or_else(unknown)?;
    drop(core);
    Ok((Presented { credential, from }, principal))
}

/// The same, whatever is wrong with it.
fn unknown() -> Problem {
    let detail =
        "the token or certificate is not valid: it is unknown, has expired, or was revoked";
    Problem::new(Code::Unauthenticated, detail)
}

/// Who asks.
pub(super) struct Caller(pub(super) Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let principal = parts.extensions.get::<Arc<Principal>>().cloned();
        principal
            .map(Self)
            .ok_or_else(|| Problem::new(Code::Internal, "it is not known who asks").into())
    }
}

/// The operator, who asks.
pub(super) struct Operator(pub(super) Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Caller(principal) = Caller::from_request_parts(parts, state).await?;
        principal.require_operator()?;
        Ok(Self(principal))
    }
}

/// Something that a route demands of who asks.
pub(super) trait Demand {
    /// What it is.
    const PERMISSION: Permission;
}

macro_rules! demands {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;
        impl Demand for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )*};
}

demands! {
    /// See [`Permission::Read`].
    Read
    /// See [`Permission::Endpoints`].
    Endpoints
    /// See [`Permission::Services`].
    Services
    /// See [`Permission::Decisions`].
    Decisions
    /// See [`Permission::Operate`].
    Operate
    /// See [`Permission::Access`].
    Access
}

/// The tenant in the path, in which who asks has the permission.
pub(super) struct In<D> {
    pub(super) caller: Arc<Principal>,
    pub(super) tenant: Name,
    demand: PhantomData<D>,
}

impl<S: Send + Sync, D: Demand> FromRequestParts<S> for In<D> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Caller(caller) = Caller::from_request_parts(parts, state).await?;
        let path = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::new(Code::Malformed, rejection.body_text()))?;
        let tenant = path.iter().find(|(name, _)| *name == "tenant");
        let tenant = name_in_path(Kind::Tenant, tenant.map_or("", |(_, value)| value))?;
        caller.require(&tenant, D::PERMISSION)?;
        Ok(Self {
            caller,
            tenant,
            demand: PhantomData,
        })
    }
}
