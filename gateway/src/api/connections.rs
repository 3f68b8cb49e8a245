//! Connections, from the provider's side: listing them and deciding about them.

use axum::{
    Json,
    extract::{ConnectInfo, State as AgentState},
};
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        Shared,
        page::{Page, PageRequest},
        request::{Body, Parameters, PathParts, reference_in_path},
        response::{Answer, Refusal},
        socket::Caller,
        view::{self, ConnectionView},
    },
    model::{
        Code, Decision, Endpoint, Kind, Problem, Record, Reference,
        operations::{self, visible_connection},
    },
};

/// What a decision comes with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionRequest {
    /// What the provider says about it.
    pub reason: String,
}

pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    PathParts(path): PathParts<(String, String)>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<ConnectionView>> {
    let service = reference_in_path(Kind::Service, &path)?;
    let core = agent.core.lock().await;
    let found = core.state.services.get(&service);
    let record = found.ok_or_else(|| Problem::not_found(Kind::Service, &service))?;
    let connections: Vec<(&Reference, &Record<Endpoint>)> = core
        .state
        .endpoints_of_service(&service)
        .filter(|(_, endpoint)| endpoint.object.service_identity.uid == record.meta.uid)
        .collect();
    let page = page.of(
        connections.iter(),
        |(endpoint, _)| endpoint.to_string(),
        |(endpoint, record)| Ok(view::connection(endpoint, record)),
    )?;
    Ok(Json(page))
}

fn link_id(text: &str) -> Result<u32, Refusal> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Problem::new(Code::NotFound, format!("there is no connection {shown}")).into()
    })
}

pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    PathParts((tenant, name, link)): PathParts<(String, String, String)>,
) -> Answer<ConnectionView> {
    let service = reference_in_path(Kind::Service, &(tenant, name))?;
    let link = link_id(&link)?;
    let core = agent.core.lock().await;
    let (endpoint, record) = visible_connection(&core.state, &service, link)?;
    Ok(Json(view::connection(endpoint, record)))
}

pub(super) async fn decide(
    AgentState(agent): AgentState<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    PathParts((tenant, name, link, decision)): PathParts<(String, String, String, String)>,
    Body(request): Body<DecisionRequest>,
) -> Answer<ConnectionView> {
    let service = reference_in_path(Kind::Service, &(tenant, name))?;
    let link = link_id(&link)?;
    let decision = match decision.as_str() {
        "approve" => Decision::Approve,
        "reject" => Decision::Reject,
        "remove" => Decision::Remove,
        _ => {
            let detail =
                "a connection can be approved, rejected or removed: approve, reject, remove";
            return Err(Problem::new(Code::NotFound, detail).into());
        }
    };
    let mut core = agent.core.lock().await;
    core.change(&caller.name, |state, context, _| {
        operations::decide(state, context, &service, link, decision, request.reason)
    })?;
    let (endpoint, record) = visible_connection(&core.state, &service, link)?;
    Ok(Json(view::connection(endpoint, record)))
}
