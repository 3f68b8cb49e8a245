//! Authentication of requests, before their body is read.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State as AgentState},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;

use crate::{
    api::{
        AppState, admission::Admission, listener::RegisteredConnection, response::ApiError, socket,
        tls,
    },
    auth::{Bearer, Credential},
    model::{Name, Principal, Problem, ProblemCode, token::TokenHash},
};

/// The credential that a request was sent with, and the peer's address.
#[derive(Clone, Debug)]
pub(super) struct CallerCredential {
    pub(super) credential: Credential,
    pub(super) from: String,
}

impl CallerCredential {
    /// Checks that the caller's credential still gives it all roles that it had. Roles that were added meanwhile do
    /// not matter, since any tenant can give a role to anybody.
    ///
    /// # Errors
    /// [`ProblemCode::Unauthenticated`].
    pub(super) async fn expect_unchanged(
        &self,
        agent: &AppState,
        caller: &Principal,
    ) -> Result<(), Problem> {
        self.credential.verify_in_advance(Timestamp::now());
        let controller = agent.controller.lock().await;
        let now = self
            .credential
            .principal(controller.state(), Timestamp::now(), &self.from);
        drop(controller);
        match now {
            Some(now) if now.includes(caller) => Ok(()),
            Some(_) => {
                let detail =
                    "the caller lost a role while the request was sent: repeat the request";
                Err(Problem::new(ProblemCode::Unauthenticated, detail))
            }
            None => Err(invalid_credential()),
        }
    }
}

/// State of the authentication middleware.
#[derive(Clone)]
pub(super) struct AuthenticationState {
    pub(super) agent: AppState,
    pub(super) admission: Arc<Admission>,
}

/// A mark on responses to authenticated requests.
#[derive(Clone, Copy)]
struct AuthenticatedMarker;

/// Authenticates a request, and forwards it to the handler if its caller is within the rate limits.
pub(super) async fn authenticate(
    AgentState(gate): AgentState<AuthenticationState>,
    mut request: Request,
    next: Next,
) -> Response {
    let AuthenticationState { agent, admission } = gate;
    let connection = ClientConnection::from_request(&request);
    let registration = connection.registration();
    let (credential, principal) = match authenticate_client(&agent, connection).await {
        Ok(found) => found,
        Err(problem) => return ApiError::from(problem).into_response(),
    };
    if let Some(registration) = registration
        && principal.require_any_role().is_ok()
    {
        registration.authenticate(&principal);
    }
    let path = request.uri().path();
    let tenant = tenant_from_path(path);
    let admitted = admission.check_request(&principal, request.method(), path, tenant.as_ref());
    let mut response = match admitted {
        Err(refusal) => refusal.into_response(),
        Ok(()) => {
            let extensions = request.extensions_mut();
            extensions.insert(Arc::new(principal));
            extensions.insert(credential);
            extensions.insert(admission);
            next.run(request).await
        }
    };
    response.extensions_mut().insert(AuthenticatedMarker);
    response
}

/// Counts unauthenticated requests from the network. Beyond the limit of their source they are answered with 429, and
/// the connection is closed.
///
/// A connection is also closed when one of its requests was authenticated and a later one is answered with 401: the
/// credential was revoked or has expired. The connection loses its share of authenticated connections at once.
pub(super) async fn meter_unauthenticated(
    AgentState(admission): AgentState<Arc<Admission>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<tls::Peer>();
    let registration = peer.map(|peer| Arc::clone(&peer.registration));
    let response = next.run(request).await;
    let Some(registration) = registration else {
        return response;
    };
    let known = response.extensions().get::<AuthenticatedMarker>().is_some();
    let response =
        if response.status() == StatusCode::UNAUTHORIZED && registration.was_authenticated() {
            registration.revoke();
            with_connection_close(response)
        } else {
            response
        };
    if known {
        return response;
    }
    registration.revoke_if_stale(Instant::now());
    if registration.is_authenticated() {
        return response;
    }
    match admission.charge_unauthenticated(registration.source()) {
        Ok(()) => response,
        Err(refusal) => with_connection_close(refusal.into_response()),
    }
}

/// Adds `Connection: close`.
fn with_connection_close(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// Returns the tenant in a path.
fn tenant_from_path(path: &str) -> Option<Name> {
    let suffix = path.strip_prefix("/v1/tenants/")?;
    suffix.split('/').next()?.parse().ok()
}

/// The connection of a request, with the credentials that it carries.
enum ClientConnection {
    Socket(socket::Peer),
    Tls(tls::Peer, Option<HeaderValue>),
    Unknown,
}

impl ClientConnection {
    fn from_request(request: &Request) -> Self {
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

    fn registration(&self) -> Option<Arc<RegisteredConnection>> {
        match self {
            Self::Tls(peer, _) => Some(Arc::clone(&peer.registration)),
            Self::Socket(_) | Self::Unknown => None,
        }
    }
}

async fn authenticate_client(
    agent: &AppState,
    connection: ClientConnection,
) -> Result<(CallerCredential, Principal), Problem> {
    let (credential, from) = match connection {
        ClientConnection::Socket(peer) => {
            (Credential::Operator { uid: peer.uid }, "socket".to_owned())
        }
        ClientConnection::Tls(peer, header) => {
            let from = peer.address.ip().to_canonical().to_string();
            let bearer = header.as_ref().map(|value| {
                let text = value.to_str().ok();
                text.and_then(Bearer::from_header)
            });
            let credential = match bearer {
                None => peer.credential.ok_or_else(|| {
                    let detail =
                        "the request has no credential: send Authorization: Bearer TOKEN, or use a client certificate";
                    Problem::new(ProblemCode::Unauthenticated, detail)
                })?,
                Some(Some(Bearer::Token(text))) => Credential::Token(TokenHash::from_text(text)),
                Some(Some(Bearer::Jwt(text))) => {
                    agent.issuers.verify(text).await.ok_or_else(invalid_credential)?
                }
                Some(None) => {
                    let detail = "the Authorization header is malformed: send Authorization: Bearer TOKEN";
                    return Err(Problem::new(ProblemCode::Unauthenticated, detail));
                }
            };
            (credential, from)
        }
        ClientConnection::Unknown => {
            return Err(Problem::new(
                ProblemCode::Internal,
                "internal error: request has no authenticated principal",
            ));
        }
    };
    credential.verify_in_advance(Timestamp::now());
    let controller = agent.controller.lock().await;
    let principal = credential.principal(controller.state(), Timestamp::now(), &from);
    let principal = principal.ok_or_else(invalid_credential)?;
    drop(controller);
    Ok((CallerCredential { credential, from }, principal))
}

/// Returns the error for an invalid credential. Its text does not depend on the cause, which would help guessing.
fn invalid_credential() -> Problem {
    let detail = "the token or certificate is unknown, expired or revoked: ask an admin of the tenant for a new one";
    Problem::new(ProblemCode::Unauthenticated, detail)
}
