//! Lists of flows.

use axum::{Json, extract::State as AgentState};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    api::{
        AppState,
        caller::Caller,
        page::{Page, checked_limit},
        request::QueryParameters,
        response::{ApiResult, ReadErrors},
        view::{self, FlowView},
    },
    model::{Kind, Permission, Problem, Reference},
};

/// Filter of flows.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FlowsRequest {
    /// Flows of this endpoint; only the operator may leave it unset, for the flows of all endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Reference>,
    /// Maximum number of flows; 100 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// List flows. The list has one page, since flows change all the time: a larger limit shows more.
#[utoipa::path(
    get, path = "/v1/flows", operation_id = "list_flows", tag = "flow",
    params(FlowsRequest),
    responses((status = 200, body = Page<FlowView>, description = "The flows, sorted by client"), ReadErrors),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
    QueryParameters(request): QueryParameters<FlowsRequest>,
) -> ApiResult<Page<FlowView>> {
    let limit = checked_limit(request.limit)?;
    match &request.endpoint {
        None => caller.require_operator()?,
        Some(endpoint) => caller.require(&endpoint.tenant, Permission::Read)?,
    }
    let controller = agent.controller.lock().await;
    let slot = match &request.endpoint {
        None => None,
        Some(reference) => {
            let found = controller.state().endpoints.get(reference);
            let record = found.ok_or_else(|| Problem::not_found(Kind::Endpoint, reference))?;
            Some(record.object.connection.slot)
        }
    };
    let flows = tokio::task::block_in_place(|| controller.list_flows(slot, limit))?;
    let mut items: Vec<FlowView> = flows
        .iter()
        .map(|found| view::flow(&controller, &caller, found))
        .collect();
    items.sort_by_key(|flow| flow.client);
    Ok(Json(Page { items, next: None }))
}
