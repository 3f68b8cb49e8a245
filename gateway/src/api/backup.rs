//! Backups of the whole store, with its secrets.

use axum::{
    Json, body::Bytes, extract::State as AgentState, http::header::CONTENT_TYPE,
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    agent::controller::{self, restore_problem},
    api::{
        AppState,
        caller::Operator,
        request::QueryParameters,
        response::{ApiError, ApiResult, ReadErrors, WriteErrors},
    },
    model::{Problem, ProblemCode},
    store::{RestorePlan, read_backup},
};

/// Options of restoring a backup.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreParameters {
    /// Report the differences and change nothing.
    #[serde(default)]
    #[param(default = false)]
    pub dry_run: bool,
    /// Accept the backup of another gateway.
    #[serde(default)]
    #[param(default = false)]
    pub foreign: bool,
}

/// Back up the whole store with its secrets, consistent at one moment.
#[utoipa::path(
    get, path = "/v1/backup", operation_id = "backup", tag = "backup",
    responses((status = 200, description = "A backup, with its checksum", body = Vec<u8>, content_type = "application/octet-stream"), ReadErrors),
)]
pub(super) async fn get(
    AgentState(agent): AgentState<AppState>,
    _operator: Operator,
) -> Result<impl IntoResponse, ApiError> {
    let controller = agent.controller.lock().await;
    let backup = tokio::task::block_in_place(|| controller.backup())?;
    drop(controller);
    let content = tokio::task::block_in_place(|| backup.encode()).map_err(|error| {
        let text = format!("the backup can't be encoded: {error}");
        Problem::new(ProblemCode::Internal, text)
    })?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], content))
}

/// Replace all state with a backup.
#[utoipa::path(
    post, path = "/v1/restore", operation_id = "restore", tag = "backup",
    params(RestoreParameters),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = RestorePlan, description = "The changes, which are in force; with `dry_run` the changes that would be made"), WriteErrors),
)]
pub(super) async fn post(
    AgentState(agent): AgentState<AppState>,
    Operator(caller): Operator,
    QueryParameters(options): QueryParameters<RestoreParameters>,
    body: Bytes,
) -> ApiResult<RestorePlan> {
    // Reading and validating a large backup takes time. Other requests are served meanwhile.
    let backup = tokio::task::block_in_place(|| read_backup(&body).map_err(restore_problem))?;
    drop(body);
    let RestoreParameters { dry_run, foreign } = options;
    let options = controller::RestoreOptions { dry_run, foreign };
    let plan = agent.restore(&caller, backup, options).await?;
    Ok(Json(plan))
}
