//! Backups of the whole store, with its secrets.

use axum::{
    Json, body::Bytes, extract::State as AgentState, http::header::CONTENT_TYPE,
    response::IntoResponse,
};

use crate::{
    agent::controller::{RestoreOptions, restore_problem},
    api::{
        AppState,
        authorize::Operator,
        request::QueryParameters,
        response::{ApiError, ApiResult, ReadErrors, WriteErrors},
        types::RestoreParameters,
    },
    model::{Problem, ProblemCode},
    store::{RestorePlan, read_backup},
};

/// Back up the whole store with its secrets, consistent at one moment.
#[utoipa::path(
    get, path = "/v1/backup", operation_id = "backup", tag = "backup",
    responses((status = 200, description = "A backup, with its checksum", body = Vec<u8>, content_type = "application/octet-stream"), ReadErrors),
)]
pub(in crate::api) async fn get(
    AgentState(agent): AgentState<AppState>,
    _operator: Operator,
) -> Result<impl IntoResponse, ApiError> {
    let controller = agent.controller.lock().await;
    let backup = tokio::task::block_in_place(|| controller.backup())?;
    drop(controller);
    // Only the operator sees the cause, which may name a remedy.
    let content = tokio::task::block_in_place(|| backup.encode()).map_err(|error| {
        let detail = format!("can't encode the backup: {error}");
        Problem::new(ProblemCode::Internal, detail)
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
pub(in crate::api) async fn post(
    AgentState(agent): AgentState<AppState>,
    Operator(caller): Operator,
    QueryParameters(options): QueryParameters<RestoreParameters>,
    body: Bytes,
) -> ApiResult<RestorePlan> {
    // Reading and validating a large backup takes time. Other requests are served meanwhile.
    let backup = tokio::task::block_in_place(|| read_backup(&body).map_err(restore_problem))?;
    drop(body);
    let RestoreParameters { dry_run, foreign } = options;
    let options = RestoreOptions { dry_run, foreign };
    let plan = agent.restore(&caller, backup, options).await?;
    Ok(Json(plan))
}
