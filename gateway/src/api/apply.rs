//! Manifests: applying one, and exporting the state as one.

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

/// Options of applying a manifest.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ApplyParameters {
    /// Report the differences and change nothing.
    #[serde(default)]
    #[param(default = false)]
    pub dry_run: bool,
    /// Delete objects that the manifest does not name, in tenants in which the caller has a role. Tokens,
    /// webhooks and Disconnected connections are kept.
    #[serde(default)]
    #[param(default = false)]
    pub prune: bool,
    /// Delete services even if connections to them are approved.
    #[serde(default)]
    #[param(default = false)]
    pub force: bool,
}

/// The outcome of applying a manifest.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// Objects that were changed, or with `dry_run` would be.
    pub differences: Vec<ObjectDiff>,
}

/// Apply a manifest: all of its changes, or none.
#[utoipa::path(
    post, path = "/v1/apply", operation_id = "apply", tag = "manifest",
    params(ApplyParameters),
    request_body = Manifest,
    responses((status = 200, body = Applied, description = "Objects that were changed, or with `dry_run` would be"), WriteErrors),
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

/// Export all objects that the caller sees as a manifest. Objects with secrets are left out.
#[utoipa::path(
    get, path = "/v1/export", operation_id = "export", tag = "manifest",
    responses((status = 200, body = Manifest, description = "The objects as a manifest"), ReadErrors),
)]
pub(super) async fn get(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
) -> ApiResult<Manifest> {
    let controller = agent.controller.lock().await;
    Ok(Json(export(controller.state(), &caller)))
}
