//! How the gateway is, and who asks.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::api::{
    AppState,
    caller::{Caller, Operator},
    response::{ApiResult, ProblemDocument, ReadErrors},
    view::{self, CallerView, StatusView},
};

/// How the gateway is.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "show_status", tag = "gateway",
    responses((status = 200, body = StatusView, description = "How it is"), ReadErrors),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<AppState>,
    _operator: Operator,
) -> ApiResult<StatusView> {
    let controller = agent.controller.lock().await;
    Ok(Json(tokio::task::block_in_place(|| {
        view::status(&controller)
    })?))
}

/// Who the gateway takes the caller for, and what the caller may do.
#[utoipa::path(
    get, path = "/v1/whoami", operation_id = "show_caller", tag = "gateway",
    responses((status = 200, body = CallerView, description = "Who asks"), ReadErrors),
)]
pub(super) async fn caller(Caller(caller): Caller) -> ApiResult<CallerView> {
    Ok(Json(view::caller(&caller)))
}

/// The agent answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "alive", tag = "gateway", security(()),
    responses(
        (status = 200, body = String, description = "It does"),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", description = "Too many requests without a credential; Retry-After says when to try again"),
    ),
)]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// The data path holds what it should.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "gateway", security(()),
    responses(
        (status = 200, body = String, description = "It does"),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", description = "Too many requests without a credential; Retry-After says when to try again"),
        (status = 503, body = String, description = "Not yet"),
    ),
)]
pub(super) async fn ready(AgentState(agent): AgentState<AppState>) -> (StatusCode, &'static str) {
    if agent.controller.lock().await.in_sync() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the kernel has not taken all changes\n",
        )
    }
}
