//! Connections as the provider handles them: lists and decisions.

use axum::{Json, extract::State as AgentState};

use crate::{
    api::{
        AppState,
        authorize::{Authorized, Caller, Decisions, Read},
        present,
        request::{JsonBody, PathParameters, QueryParameters, parse_path_reference},
        response::{ApiError, ApiResult, ReadErrors, WriteErrors},
        types::{ConnectionView, ConnectionsRequest, DecisionRequest, Page, PageRequest},
    },
    model::{
        Access, Decision, Endpoint, Kind, Name, Problem, ProblemCode, Record, Reference, State,
        operations::{self, find_connection},
    },
};

type EndpointEntry<'a> = (&'a Reference, &'a Record<Endpoint>);

fn paginate<'a>(
    page: &PageRequest,
    connections: impl Iterator<Item = EndpointEntry<'a>>,
) -> Result<Page<ConnectionView>, ApiError> {
    page.paginate(
        connections,
        |(endpoint, _)| (*endpoint).clone(),
        |(endpoint, record)| Ok(present::connection(endpoint, record)),
    )
}

/// Returns true if the service for which the endpoint was created still exists.
fn is_connected(state: &State, endpoint: &Endpoint) -> bool {
    let service = state.services.get(&endpoint.service_identity.reference);
    service.is_some_and(|service| service.meta.uid == endpoint.service_identity.uid)
}

/// List the connections to all services in which the caller has a role.
#[utoipa::path(
    get, path = "/v1/connections", operation_id = "list_connections", tag = "connection",
    params(ConnectionsRequest),
    responses((status = 200, body = Page<ConnectionView>, description = "The connections, sorted by endpoint"), ReadErrors),
)]
pub(in crate::api) async fn list_all(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
    QueryParameters(request): QueryParameters<ConnectionsRequest>,
) -> ApiResult<Page<ConnectionView>> {
    let page = PageRequest {
        limit: request.limit,
        after: request.after,
    };
    let controller = agent.controller.lock().await;
    let state = controller.state();
    let matches = |record: &Record<Endpoint>| {
        let endpoint = &record.object;
        request
            .state
            .is_none_or(|state| state == endpoint.connection.state)
            && caller.can_see(&endpoint.service_identity.reference.tenant)
            && is_connected(state, endpoint)
    };
    let page = match (&request.endpoint, &caller.access) {
        (Some(endpoint), _) => {
            let found = state.endpoints.get_key_value(endpoint).into_iter();
            paginate(&page, found.filter(|(_, record)| matches(record)))?
        }
        (None, Access::Operator) => {
            let all = state.endpoints.iter();
            paginate(&page, all.filter(|(_, record)| matches(record)))?
        }
        (None, Access::Tenants(roles)) => {
            let services = roles
                .keys()
                .flat_map(|tenant| State::owned_by(&state.services, tenant));
            let connections = services.flat_map(|(service, _)| state.endpoints_of_service(service));
            let mut found: Vec<EndpointEntry<'_>> =
                connections.filter(|(_, record)| matches(record)).collect();
            found.sort_by_key(|(endpoint, _)| *endpoint);
            paginate(&page, found.into_iter())?
        }
    };
    Ok(Json(page))
}

/// List the connections to a service.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services/{name}/connections", operation_id = "list_service_connections", tag = "connection",
    params(("tenant" = Name, Path, description = "The service's owner"), ("name" = Name, Path, description = "The service"), PageRequest),
    responses((status = 200, body = Page<ConnectionView>, description = "The connections, sorted by endpoint"), ReadErrors),
)]
pub(in crate::api) async fn list(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String)>,
    QueryParameters(page): QueryParameters<PageRequest>,
) -> ApiResult<Page<ConnectionView>> {
    let service = parse_path_reference(Kind::Service, caller.tenant, &path.1)?;
    let controller = agent.controller.lock().await;
    if !controller.state().services.contains_key(&service) {
        return Err(Problem::not_found(Kind::Service, &service).into());
    }
    let connections = controller.state().endpoints_of_service(&service);
    let connected =
        connections.filter(|(_, record)| is_connected(controller.state(), &record.object));
    Ok(Json(paginate(&page, connected)?))
}

fn parse_link_id(text: &str) -> Result<u32, ApiError> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Problem::new(
            ProblemCode::NotFound,
            format!("there is no connection {shown}"),
        )
        .into()
    })
}

/// Show a connection.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/services/{name}/connections/{link_id}", operation_id = "show_connection", tag = "connection",
    params(("tenant" = Name, Path, description = "The service's owner"), ("name" = Name, Path, description = "The service"), ("link_id" = u32, Path, description = "The link id of the connection")),
    responses((status = 200, body = ConnectionView, description = "The connection"), ReadErrors),
)]
pub(in crate::api) async fn show(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Read>,
    PathParameters(path): PathParameters<(String, String, String)>,
) -> ApiResult<ConnectionView> {
    let service = parse_path_reference(Kind::Service, caller.tenant, &path.1)?;
    let link = parse_link_id(&path.2)?;
    let controller = agent.controller.lock().await;
    let (endpoint, record) = find_connection(controller.state(), &service, link)?;
    Ok(Json(present::connection(endpoint, record)))
}

async fn decide(
    agent: AppState,
    caller: Authorized<Decisions>,
    (name, link): (String, String),
    decision: Decision,
    request: DecisionRequest,
) -> ApiResult<ConnectionView> {
    let service = parse_path_reference(Kind::Service, caller.tenant, &name)?;
    let link = parse_link_id(&link)?;
    agent
        .change_and_present(
            &caller.caller,
            None,
            |state, context, _| {
                let (_, record) = find_connection(state, &service, link)?;
                record.expect_version(request.version)?;
                operations::decide(state, context, &service, link, decision, request.reason)
            },
            |controller, _| {
                let (endpoint, record) = find_connection(controller.state(), &service, link)?;
                Ok(Json(present::connection(endpoint, record)))
            },
        )
        .await
}

macro_rules! decisions {
    ($($(#[$doc:meta])* $name:ident $decision:ident $path:literal $id:literal;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, operation_id = $id, tag = "connection",
            params(("tenant" = Name, Path, description = "The service's owner"), ("name" = Name, Path, description = "The service"), ("link_id" = u32, Path, description = "The link id of the connection")),
            request_body = DecisionRequest,
            responses((status = 200, body = ConnectionView, description = "The connection after the decision"), WriteErrors),
        )]
        pub(in crate::api) async fn $name(
            AgentState(agent): AgentState<AppState>,
            caller: Authorized<Decisions>,
            PathParameters(path): PathParameters<(String, String, String)>,
            JsonBody(request, _permit): JsonBody<DecisionRequest>,
        ) -> ApiResult<ConnectionView> {
            decide(agent, caller, (path.1, path.2), Decision::$decision, request).await
        }
    )*};
}

decisions! {
    /// Approve a connection, which then carries traffic.
    approve Approve "/v1/tenants/{tenant}/services/{name}/connections/{link_id}/approve" "approve_connection";
    /// Reject a connection, or revoke its approval; it can be approved later.
    reject Reject "/v1/tenants/{tenant}/services/{name}/connections/{link_id}/reject" "reject_connection";
    /// Remove a connection permanently.
    remove Remove "/v1/tenants/{tenant}/services/{name}/connections/{link_id}/remove" "remove_connection";
}
