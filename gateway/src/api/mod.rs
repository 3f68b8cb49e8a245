//! The HTTP API: requests into operations, outcomes into JSON. No decision is taken here, but who may
//! ask for what: see [`caller`].

#![allow(unused_qualifications, reason = "utoipa's macros make them")]

pub mod apply;
mod backup;
mod caller;
pub mod connections;
mod document;
mod endpoints;
pub mod events;
pub mod flows;
mod identities;
mod networks;
pub mod page;
mod request;
pub mod response;
pub mod services;
pub mod socket;
mod status;
mod tenants;
pub mod tls;
mod tokens;
pub mod view;
mod webhooks;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
};
use tokio::net::UnixListener;

use crate::{
    agent::Agent,
    api::{response::Refusal, socket::Peer},
    model::{Code, Problem},
};

pub use document::document;

/// What handlers share.
type Shared = Arc<Agent>;

/// The largest body, in bytes.
const MOST_BODY: usize = 1 << 20;

/// Serves the API on the control socket, until the process ends.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: UnixListener, agent: Shared) -> Result<()> {
    let service = router(agent).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service)
        .await
        .context("the control socket failed")
}

fn router(agent: Shared) -> Router {
    let (known, document) = document::routes();
    let authenticate = middleware::from_fn_with_state(Arc::clone(&agent), caller::authenticate);
    Router::new()
        .merge(known.route_layer(authenticate))
        .merge(document::open_routes(&document))
        .fallback(async |uri: Uri| {
            let detail = format!("there is nothing at {}", uri.path());
            Refusal::from(Problem::new(Code::NotFound, detail))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let detail = format!("{} does not take {method}", uri.path());
            Refusal::from(Problem::new(Code::MethodNotAllowed, detail))
        })
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .with_state(agent)
}
