//! Status of the gateway, identity of the caller, and the probes of liveness and readiness.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::api::{
    AppState,
    authorize::{Caller, Operator},
    present,
    response::{ApiResult, ReadErrors},
    types::{CallerView, ProblemDocument, StatusView},
};

/// Show the gateway's status.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "show_status", tag = "gateway",
    responses((status = 200, body = StatusView, description = "The status"), ReadErrors),
)]
pub(in crate::api) async fn show(
    AgentState(agent): AgentState<AppState>,
    _operator: Operator,
) -> ApiResult<StatusView> {
    let controller = agent.controller.lock().await;
    Ok(Json(tokio::task::block_in_place(|| {
        present::status(&controller)
    })?))
}

/// Show the authenticated identity of the caller, and its roles.
#[utoipa::path(
    get, path = "/v1/whoami", operation_id = "show_caller", tag = "gateway",
    responses((status = 200, body = CallerView, description = "The caller"), ReadErrors),
)]
pub(in crate::api) async fn caller(Caller(caller): Caller) -> ApiResult<CallerView> {
    Ok(Json(present::caller(&caller)))
}

/// Check that the agent responds.
#[utoipa::path(
    get, path = "/healthz", operation_id = "alive", tag = "gateway", security(()),
    responses(
        (status = 200, body = String, description = "Success"),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", description = "Too many requests without a credential; Retry-After has the seconds to wait"),
    ),
)]
pub(in crate::api) async fn alive() -> &'static str {
    "alive\n"
}

/// Check that the data path is in sync with the configuration.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "gateway", security(()),
    responses(
        (status = 200, body = String, description = "Success"),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", description = "Too many requests without a credential; Retry-After has the seconds to wait"),
        (status = 503, body = String, description = "Not in sync yet"),
    ),
)]
pub(in crate::api) async fn ready(
    AgentState(agent): AgentState<AppState>,
) -> (StatusCode, &'static str) {
    if agent.controller.lock().await.in_sync() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not in sync: the data path lacks changes\n",
        )
    }
}
