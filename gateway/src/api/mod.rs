//! The HTTP API: requests into operations, outcomes into JSON. No decision is taken here.

pub mod connections;
mod endpoints;
mod flows;
mod networks;
pub mod page;
mod request;
pub mod response;
mod services;
pub mod socket;
mod status;
mod tenants;
pub mod view;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    routing::{get, post},
};
use tokio::net::UnixListener;

use crate::{
    agent::Agent,
    api::{request::MOST_BODY, response::Refusal, socket::Caller},
    model::{Code, Problem},
};

/// What handlers share.
type Shared = Arc<Agent>;

/// Serves the API on the control socket, until the process ends.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: UnixListener, agent: Shared) -> Result<()> {
    let service = router(agent).into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, service)
        .await
        .context("the control socket failed")
}

fn router(agent: Shared) -> Router {
    Router::new()
        .route("/healthz", get(status::alive))
        .route("/readyz", get(status::ready))
        .route("/v1/status", get(status::show))
        .route("/v1/flows", get(flows::list))
        .route("/v1/tenants", get(tenants::list).post(tenants::create))
        .route(
            "/v1/tenants/{tenant}",
            get(tenants::show)
                .put(tenants::update)
                .delete(tenants::delete),
        )
        .route(
            "/v1/tenants/{tenant}/networks",
            get(networks::list).post(networks::create),
        )
        .route(
            "/v1/tenants/{tenant}/networks/{name}",
            get(networks::show)
                .put(networks::update)
                .delete(networks::delete),
        )
        .route(
            "/v1/tenants/{tenant}/services",
            get(services::list).post(services::create),
        )
        .route(
            "/v1/tenants/{tenant}/services/{name}",
            get(services::show)
                .put(services::update)
                .delete(services::delete),
        )
        .route(
            "/v1/tenants/{tenant}/services/{name}/connections",
            get(connections::list),
        )
        .route(
            "/v1/tenants/{tenant}/services/{name}/connections/{link_id}",
            get(connections::show),
        )
        .route(
            "/v1/tenants/{tenant}/services/{name}/connections/{link_id}/{decision}",
            post(connections::decide),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints",
            get(endpoints::list).post(endpoints::create),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{name}",
            get(endpoints::show)
                .put(endpoints::update)
                .delete(endpoints::delete),
        )
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
