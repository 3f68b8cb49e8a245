//! Flows.

use axum::{Json, extract::State as AgentState};
use serde::Deserialize;

use crate::{
    api::{
        Shared,
        page::{MOST_ITEMS, Page},
        request::Parameters,
        response::Answer,
        view::{self, FlowView},
    },
    model::{Kind, Problem, Reference},
};

/// Which flows are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowsRequest {
    /// Those of one endpoint.
    endpoint: Option<Reference>,
    /// How many at the most; 100 where unset.
    limit: Option<usize>,
}

/// Flows come and go, so there are no further pages: a larger limit shows more.
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    Parameters(request): Parameters<FlowsRequest>,
) -> Answer<Page<FlowView>> {
    let limit = request.limit.unwrap_or(100);
    if !(1..=MOST_ITEMS).contains(&limit) {
        let detail = format!("limit must be 1 to {MOST_ITEMS}");
        return Err(Problem::invalid("limit", detail).into());
    }
    let core = agent.core.lock().await;
    let slot = match &request.endpoint {
        None => None,
        Some(reference) => {
            let found = core.state.endpoints.get(reference);
            let record = found.ok_or_else(|| Problem::not_found(Kind::Endpoint, reference))?;
            Some(record.object.connection.slot)
        }
    };
    let flows = tokio::task::block_in_place(|| core.flows(slot, limit))?;
    let mut items: Vec<FlowView> = flows.iter().map(|found| view::flow(&core, found)).collect();
    items.sort_by_key(|flow| flow.client);
    Ok(Json(Page { items, next: None }))
}
