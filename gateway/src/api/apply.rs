//! Many objects at once: bringing them to what a manifest says, and writing them down as one.

use axum::{Json, extract::State as AgentState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        AppState,
        caller::Caller,
        request::{JsonBody, QueryParameters},
        response::{ApiResult, ReadErrors, WriteErrors},
    },
    model::{
        manifest::Manifest,
        operations::{ApplyOptions, ObjectDiff, apply, export},
    },
};

/// How a manifest is applied.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ApplyParameters {
    /// Nothing is changed; only the difference is told.
    #[serde(default)]
    #[param(default = false)]
    pub dry_run: bool,
    /// What the manifest does not name is deleted: of tenants in which the caller has a role, but for
    /// tokens, webhooks, and connections that are Disconnected.
    #[serde(default)]
    #[param(default = false)]
    pub prune: bool,
    /// Services are deleted even though connections to them are approved.
    #[serde(default)]
    #[param(default = false)]
    pub force: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// What was changed, or would be.
    pub differences: Vec<ObjectDiff>,
}

/// Bring objects to what a manifest says: all of it, or nothing.
#[utoipa::path(
    post, path = "/v1/apply", operation_id = "apply", tag = "manifest",
    params(ApplyParameters),
    request_body = Manifest,
    responses((status = 200, body = Applied, description = "What was changed, or would be"), WriteErrors),
)]
pub(super) async fn post(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
    QueryParameters(options): QueryParameters<ApplyParameters>,
    JsonBody(manifest, _permit): JsonBody<Manifest>,
) -> ApiResult<Applied> {
    let ApplyParameters {
        dry_run,
        prune,
        force,
    } = options;
    let options = ApplyOptions { prune, force };
    let mut differences = Vec::new();
    let change = agent.change(&caller, |state, context, policy| {
        let (changes, found) = apply(state, context, policy, &caller, &manifest, options)?;
        differences = found;
        Ok(if dry_run { Vec::new() } else { changes })
    });
    change.await?;
    Ok(Json(Applied { differences }))
}

/// Write down everything that the caller sees, but for what has secrets.
#[utoipa::path(
    get, path = "/v1/export", operation_id = "export", tag = "manifest",
    responses((status = 200, body = Manifest, description = "All of it, as a manifest"), ReadErrors),
)]
pub(super) async fn get(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
) -> ApiResult<Manifest> {
    let controller = agent.controller.lock().await;
    Ok(Json(export(controller.state(), &caller)))
}
