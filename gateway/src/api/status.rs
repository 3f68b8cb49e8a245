//! How the gateway is.

use axum::{Json, extract::State as AgentState, http::StatusCode};

use crate::api::{
    Shared,
    response::Answer,
    view::{self, StatusView},
};

pub(super) async fn show(AgentState(agent): AgentState<Shared>) -> Answer<StatusView> {
    let core = agent.core.lock().await;
    Ok(Json(tokio::task::block_in_place(|| view::status(&core))?))
}

/// The agent answers.
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// The data path holds what it should.
pub(super) async fn ready(AgentState(agent): AgentState<Shared>) -> (StatusCode, &'static str) {
    if agent.core.lock().await.in_step() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the kernel has not taken all changes\n",
        )
    }
}
