//! Lists of flows.

use axum::{Json, extract::State as AgentState};

use crate::{
    api::{
        AppState,
        authorize::Caller,
        page::checked_limit,
        present,
        request::QueryParameters,
        response::{ApiResult, ReadErrors},
        types::{FlowView, FlowsRequest, Page},
    },
    model::{Kind, Permission, Problem},
};

/// List flows. The list has one page, since flows change all the time: a larger limit shows more.
#[utoipa::path(
    get, path = "/v1/flows", operation_id = "list_flows", tag = "flow",
    params(FlowsRequest),
    responses((status = 200, body = Page<FlowView>, description = "The flows, sorted by client"), ReadErrors),
)]
pub(in crate::api) async fn list(
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
        .map(|found| present::flow(&controller, &caller, found))
        .collect();
    items.sort_by_key(|flow| flow.client);
    Ok(Json(Page { items, next: None }))
}
