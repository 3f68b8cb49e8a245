//! Backups: the whole store, secrets included.

use axum::{
    Json, body::Bytes, extract::State as AgentState, http::header::CONTENT_TYPE,
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    agent::backups::{self, unfit},
    api::{
        Shared,
        caller::Operator,
        request::Parameters,
        response::{Answer, ChangeProblems, LookProblems, Refusal},
    },
    model::{Code, Problem},
    store::{RestorePlan, read_backup},
};

/// How a backup is restored.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreOptions {
    /// Nothing is changed; only what would change is told.
    #[serde(default)]
    #[param(default = false)]
    pub dry_run: bool,
    /// The backup may be of another gateway.
    #[serde(default)]
    #[param(default = false)]
    pub foreign: bool,
}

/// The whole store, secrets included, as it is at one moment.
#[utoipa::path(
    get, path = "/v1/backup", operation_id = "backup", tag = "backup",
    responses((status = 200, description = "A backup, with its checksum", body = Vec<u8>, content_type = "application/octet-stream"), LookProblems),
)]
pub(super) async fn get(
    AgentState(agent): AgentState<Shared>,
    _operator: Operator,
) -> Result<impl IntoResponse, Refusal> {
    let core = agent.core.lock().await;
    let backup = tokio::task::block_in_place(|| core.backup())?;
    drop(core);
    let content = tokio::task::block_in_place(|| backup.encode()).map_err(|error| {
        let text = format!("the backup can't be made: {error}");
        Problem::new(Code::Internal, text)
    })?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], content))
}

/// Put what is in a backup in the place of everything.
#[utoipa::path(
    post, path = "/v1/restore", operation_id = "restore", tag = "backup",
    params(RestoreOptions),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = RestorePlan, description = "What was changed, and is in force; or what would be changed"), ChangeProblems),
)]
pub(super) async fn post(
    AgentState(agent): AgentState<Shared>,
    Operator(caller): Operator,
    Parameters(options): Parameters<RestoreOptions>,
    body: Bytes,
) -> Answer<RestorePlan> {
    // Reading and judging a large backup takes time: others are served meanwhile.
    let backup = tokio::task::block_in_place(|| read_backup(&body).map_err(unfit))?;
    drop(body);
    let RestoreOptions { dry_run, foreign } = options;
    let options = backups::RestoreOptions { dry_run, foreign };
    let mut core = agent.core.lock().await;
    let plan = tokio::task::block_in_place(|| core.restore(&caller, backup, options))?;
    drop(core);
    if !dry_run {
        agent.look().await?;
    }
    Ok(Json(plan))
}
