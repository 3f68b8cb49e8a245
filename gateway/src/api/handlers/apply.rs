//! Manifests: applying one, and exporting the state as one.

use axum::{Json, extract::State as AgentState};

use crate::{
    api::{
        AppState,
        authorize::Caller,
        request::{JsonBody, QueryParameters},
        response::{ApiResult, ReadErrors, WriteErrors},
        types::{Applied, ApplyParameters},
    },
    model::{
        manifest::Manifest,
        operations::{ApplyOptions, apply, export},
    },
};

/// Apply a manifest: all of its changes, or none.
#[utoipa::path(
    post, path = "/v1/apply", operation_id = "apply", tag = "manifest",
    params(ApplyParameters),
    request_body = Manifest,
    responses((status = 200, body = Applied, description = "Objects that were changed, or with `dry_run` would be"), WriteErrors),
)]
pub(in crate::api) async fn post(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
    QueryParameters(options): QueryParameters<ApplyParameters>,
    JsonBody(manifest, _permit): JsonBody<Manifest>,
) -> ApiResult<Applied> {
    let ApplyParameters {
        dry_run,
        prune,
        force,
        replace,
    } = options;
    let options = ApplyOptions {
        prune,
        force,
        replace,
    };
    if !manifest.networks.is_empty() && caller.is_operator() {
        agent.scan_host_uses().await?;
    }
    let mut differences = Vec::new();
    agent
        .change(&caller, |state, context, policy| {
            let (changes, found) = apply(state, context, policy, &caller, &manifest, options)?;
            differences = found;
            Ok(if dry_run { Vec::new() } else { changes })
        })
        .await?;
    Ok(Json(Applied { differences }))
}

/// Export all objects that the caller sees as a manifest. Objects with secrets are left out.
#[utoipa::path(
    get, path = "/v1/export", operation_id = "export", tag = "manifest",
    responses((status = 200, body = Manifest, description = "The objects as a manifest"), ReadErrors),
)]
pub(in crate::api) async fn get(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
) -> ApiResult<Manifest> {
    let controller = agent.controller.lock().await;
    Ok(Json(export(controller.state(), &caller)))
}
