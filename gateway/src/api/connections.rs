//! Connections, from the provider's side: listing them and deciding about them.

use axum::{Json, extract::State as AgentState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Shared,
        caller::{Caller, Decisions, In, Read},
        page::{Page, PageRequest},
        request::{Body, Parameters, PathParts, reference_in_path},
        response::{Answer, ChangeProblems, LookProblems, Refusal},
        view::{self, ConnectionView},
    },
    model::{
        Access, Code, ConnectionState, Decision, Endpoint, Kind, Name, Problem, Record, Reference,
        State,
        operations::{self, visible_connection},
    },
};

/// What a decision comes with.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionRequest {
    /// What the provider says about it.
    #[schema(max_length = 1000)]
    pub reason: String,
    /// The version of the connection that was decided about; unset: whatever it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// Which connections are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsRequest {
    /// That of one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Reference>,
    /// Those in one state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ConnectionState>,
    /// How many at the most; 100 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Those that come after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 127)]
    pub after: Option<String>,
}

type Found<'a> = (&'a Reference, &'a Record<Endpoint>);

fn page_of<'a>(
    page: &PageRequest,
    connections: impl Iterator<Item = Found<'a>>,
) -> Result<Page<ConnectionView>, Refusal> {
    page.of(
        connections,
        |(endpoint, _)| (*endpoint).clone(),
        |(endpoint, record)| Ok(view::connection(endpoint, record)),
    )
}

/// Whether the service that it was made for is there still.
fn is_connected(state: &State, endpoint: &Endpoint) -> bool {
    let service = state.services.get(&endpoint.service_identity.reference);
    service.is_some_and(|service| service.meta.uid == endpoint.service_identity.uid)
}

/// List the connections to all services in which the caller has a role.
#[utoipa::path(
    get, path = "/v1/connections", operation_id = "list_connections", tag = "connection",
    params(ConnectionsRequest),
    responses((status = 200, body = Page<ConnectionView>, description = "The connections, by endpoint"), LookProblems),
)]
pub(super) async fn list_all(
    AgentState(agent): AgentState<Shared>,
    Caller(caller): Caller,
    Parameters(request): Parameters<ConnectionsRequest>,
) -> Answer<Page<ConnectionView>> {
    let page = PageRequest {
        limit: request.limit,
        after: request.after,
    };
    let core = agent.core.lock().await;
    let state = &core.state;
    let wanted = |record: &Record<Endpoint>| {
        let endpoint = &record.object;
        request
            .state
            .is_none_or(|state| state == endpoint.connection.state)
            && caller.sees(&endpoint.service_identity.reference.tenant)
            && is_connected(state, endpoint)
    };
    let page = match (&request.endpoint, &caller.access) {
        (Some(endpoint), _) => {
            let found = state.endpoints.get_key_value(endpoint).into_iter();
            page_of(&page, found.filter(|(_, record)| wanted(record)))?
        }
        (None, Access::Operator) => {
            let all = state.endpoints.iter();
            page_of(&page, all.filter(|(_, record)| wanted(record)))?
        }
        (None, Access::Tenants(roles)) => {
            let services = roles
                .keys()
                .flat_map(|tenant| State::owned(&state.services, tenant));
            let connections = services.flat_map(|(service, _)| state.endpoints_of_service(service));
            let mut found: Vec<Found<'_>> =
                connections.filter(|(_, record)| wanted(record)).collect();
            found.sort_by_key(|(endpoint, _)| *endpoint);
            page_of(&page, found.into_iter())?
        }
    };
    Ok(Json(page))
}

/// List the connections to a service.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services/{name}/connections", operation_id = "list_service_connections", tag = "connection",
    params(("tenant" = Name, Path, description = "The service's owner"), ("name" = Name, Path, description = "The service"), PageRequest),
    responses((status = 200, body = Page<ConnectionView>, description = "The connections, by endpoint"), LookProblems),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String)>,
    Parameters(page): Parameters<PageRequest>,
) -> Answer<Page<ConnectionView>> {
    let service = reference_in_path(Kind::Service, caller.tenant, &path.1)?;
    let core = agent.core.lock().await;
    if !core.state.services.contains_key(&service) {
        return Err(Problem::not_found(Kind::Service, &service).into());
    }
    let connections = core.state.endpoints_of_service(&service);
    let connected = connections.filter(|(_, record)| is_connected(&core.state, &record.object));
    Ok(Json(page_of(&page, connected)?))
}

fn link_id(text: &str) -> Result<u32, Refusal> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Problem::new(Code::NotFound, format!("there is no connection {shown}")).into()
    })
}

/// Show a connection.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services/{name}/connections/{link_id}", operation_id = "show_connection", tag = "connection",
    params(("tenant" = Name, Path, description = "The service's owner"), ("name" = Name, Path, description = "The service"), ("link_id" = u32, Path, description = "The connection's number")),
    responses((status = 200, body = ConnectionView, description = "The connection"), LookProblems),
)]
pub(super) async fn show(
    AgentState(agent): AgentState<Shared>,
    caller: In<Read>,
    PathParts(path): PathParts<(String, String, String)>,
) -> Answer<ConnectionView> {
    let service = reference_in_path(Kind::Service, caller.tenant, &path.1)?;
    let link = link_id(&path.2)?;
    let core = agent.core.lock().await;
    let (endpoint, record) = visible_connection(&core.state, &service, link)?;
    Ok(Json(view::connection(endpoint, record)))
}

async fn decide(
    agent: Shared,
    caller: In<Decisions>,
    (name, link): (String, String),
    decision: Decision,
    request: DecisionRequest,
) -> Answer<ConnectionView> {
    let service = reference_in_path(Kind::Service, caller.tenant, &name)?;
    let link = link_id(&link)?;
    let mut core = agent.core.lock().await;
    core.change(&caller.caller, |state, context, _| {
        let (_, record) = visible_connection(state, &service, link)?;
        record.expect_version(request.version)?;
        operations::decide(state, context, &service, link, decision, request.reason)
    })?;
    let (endpoint, record) = visible_connection(&core.state, &service, link)?;
    Ok(Json(view::connection(endpoint, record)))
}

macro_rules! decisions {
    ($($(#[$doc:meta])* $name:ident $decision:ident $path:literal $id:literal;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, operation_id = $id, tag = "connection",
            params(("tenant" = Name, Path, description = "The service's owner"), ("name" = Name, Path, description = "The service"), ("link_id" = u32, Path, description = "The connection's number")),
            request_body = DecisionRequest,
            responses((status = 200, body = ConnectionView, description = "The connection as it is now"), ChangeProblems),
        )]
        pub(super) async fn $name(
            AgentState(agent): AgentState<Shared>,
            caller: In<Decisions>,
            PathParts(path): PathParts<(String, String, String)>,
            Body(request, _permit): Body<DecisionRequest>,
        ) -> Answer<ConnectionView> {
            decide(agent, caller, (path.1, path.2), Decision::$decision, request).await
        }
    )*};
}

decisions! {
    /// Let an endpoint's connection carry traffic.
    approve Approve "/v1/tenants/{tenant}/services/{name}/connections/{link_id}/approve" "approve_connection";
    /// Refuse a connection, or cut it off; it can be approved later.
    reject Reject "/v1/tenants/{tenant}/services/{name}/connections/{link_id}/reject" "reject_connection";
    /// End a connection for good.
    remove Remove "/v1/tenants/{tenant}/services/{name}/connections/{link_id}/remove" "remove_connection";
}
