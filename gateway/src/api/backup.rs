//! Backups: the whole store, secrets included.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _};

use anyhow::Context as _;
use axum::{
    body::Bytes,
    extract::State as AgentState,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};

use crate::{
    api::{
        Shared,
        caller::Operator,
        response::{ChangeProblems, LookProblems, Refusal},
    },
    model::{Code, Problem},
    store::read_backup,
};

/// The largest backup that is taken, in bytes.
pub(super) const MOST_BODY: usize = 1 << 30;

/// The whole store, secrets included, as it is at one moment.
#[utoipa::path(
    get, path = "/v1/backup", operation_id = "backup", tag = "backup",
    responses((status = 200, description = "An SQLite file", body = Vec<u8>, content_type = "application/octet-stream"), LookProblems),
)]
pub(super) async fn get(
    AgentState(agent): AgentState<Shared>,
    _operator: Operator,
) -> Result<impl IntoResponse, Refusal> {
    let core = agent.core.lock().await;
    let content = tokio::task::block_in_place(|| core.backup())?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], content))
}

/// Put what is in a backup in the place of everything.
#[utoipa::path(
    post, path = "/v1/restore", operation_id = "restore", tag = "backup",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "It is restored, and in force"), ChangeProblems),
)]
pub(super) async fn post(
    AgentState(agent): AgentState<Shared>,
    Operator(caller): Operator,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let entries = tokio::task::block_in_place(|| -> Result<_, Refusal> {
        let file = agent
            .state_dir
            .join(format!(".restore-{}", std::process::id()));
        let remove = || {
            for suffix in ["", "-wal", "-shm"] {
                let _gone = fs::remove_file(format!("{}{suffix}", file.display()));
            }
        };
        remove();
        let written = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| file.write_all(&body));
        let entries = written
            .context("there is no room for it beside the store")
            .map_err(|error| Problem::new(Code::StoreUnavailable, format!("{error:#}")))
            .and_then(|()| {
                read_backup(&file).map_err(|error| {
                    let text = error.to_string().replace(&file.display().to_string(), "");
                    Problem::new(Code::Invalid, format!("this is no backup: {text}"))
                })
            });
        remove();
        Ok(entries?)
    })?;
    let mut core = agent.core.lock().await;
    tokio::task::block_in_place(|| core.restore(&caller, entries))?;
    drop(core);
    agent.look().await?;
    Ok(StatusCode::NO_CONTENT)
}
