//! Lists of flows.

use axum::{Json, extract::State as AgentState};

use crate::{
    agent::flow_list::{FlowFilter, FlowPosition, list_flows},
    api::{
        AppState,
        authorize::Caller,
        page::checked_limit,
        present,
        request::QueryParameters,
        response::{ApiResult, ReadErrors},
        types::{FlowView, FlowsRequest, Page},
    },
    model::{Kind, Permission, Problem, State},
};

/// List flows, in no order. Flows that are opened or closed between two pages may be missing.
#[utoipa::path(
    get, path = "/v1/flows", operation_id = "list_flows", tag = "flow",
    params(FlowsRequest),
    responses((status = 200, body = Page<FlowView>, description = "A page of flows"), ReadErrors),
)]
pub(in crate::api) async fn list(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
    QueryParameters(request): QueryParameters<FlowsRequest>,
) -> ApiResult<Page<FlowView>> {
    let limit = checked_limit(request.limit)?;
    match (&request.endpoint, &request.tenant) {
        (Some(endpoint), _) => caller.require(&endpoint.tenant, Permission::Read)?,
        (None, Some(tenant)) => caller.require(tenant, Permission::Read)?,
        (None, None) => caller.require_operator()?,
    }
    if request.backend.is_some() {
        caller.require_operator()?;
    }
    let from = match &request.after {
        None => 0,
        Some(after) => {
            let position = after.parse::<FlowPosition>().ok();
            // Only what this API has returned: no signs, and no zeros in front.
            let position = position.filter(|position| position.to_string() == *after);
            position.ok_or_else(|| {
                let detail =
                    "after is not a position in this list: use `next` of the previous page";
                Problem::invalid("after", detail)
            })?
        }
    };
    let (tables, filter) = {
        let controller = agent.controller.lock().await;
        let tables = controller.maps().flow_tables().clone();
        (tables, filter(controller.state(), &request)?)
    };
    let (flows, next) = tokio::task::block_in_place(|| list_flows(&tables, &filter, from, limit));
    let controller = agent.controller.lock().await;
    let mut items: Vec<FlowView> = flows
        .iter()
        .map(|found| present::flow(&controller, &caller, found))
        .collect();
    items.sort_by_key(|flow| flow.client);
    let next = next.map(|position| position.to_string());
    Ok(Json(Page { items, next }))
}

/// Returns the flows that a request selects.
fn filter(state: &State, request: &FlowsRequest) -> Result<FlowFilter, Problem> {
    let connections = match (&request.endpoint, &request.tenant) {
        (Some(reference), tenant) => {
            let found = state.endpoints.get(reference);
            let record = found.ok_or_else(|| Problem::not_found(Kind::Endpoint, reference))?;
            let is_selected = tenant
                .as_ref()
                .is_none_or(|tenant| *tenant == reference.tenant);
            let slots = is_selected.then_some(record.object.connection.slot);
            Some(slots.into_iter().collect())
        }
        (None, Some(tenant)) => {
            if !state.tenants.contains_key(tenant) {
                return Err(Problem::no_tenant(tenant));
            }
            let endpoints = state.endpoints.iter();
            let of_tenant = endpoints.filter(|(reference, _)| reference.tenant == *tenant);
            Some(
                of_tenant
                    .map(|(_, record)| record.object.connection.slot)
                    .collect(),
            )
        }
        (None, None) => None,
    };
    Ok(FlowFilter {
        connections,
        client: request.client,
        backend: request.backend,
    })
}
