//! Endpoints: the consumer's side of private links.

use std::collections::BTreeMap;

use axum::{Json, extract::State as AgentState};

use crate::{
    agent::controller::Controller,
    api::{
        AppState,
        authorize::{Authorized, Endpoints},
        handlers::crud::{self, CreateObject, TenantObject, UpdateObject, crud},
        present::{self, CounterDetail, ServiceAvailability},
        request::{JsonBody, PathParameters, parse_path_reference},
        response::{ApiResult, WriteErrors},
        types::EndpointView,
    },
    model::{
        Change, Endpoint, Kind, Name, OpContext, Principal, Problem, Record, Reference, State,
        endpoint::{EndpointRequest, ReconnectRequest},
        operations::{
            Policy, create_endpoint, delete_endpoint, reconnect_endpoint, update_endpoint,
        },
    },
};

crud! {
    Endpoint: EndpointRequest => EndpointView, Endpoints, "endpoint", "endpoints",
    "/v1/tenants/{tenant}/endpoints", "/v1/tenants/{tenant}/endpoints/{name}";
    list "List a tenant's endpoints, without the drops by reason.";
    create(idempotent) "Create an endpoint.";
    show "Show an endpoint.";
    update "Change an endpoint's labels; its service, resource and addresses never change.";
    delete "Delete an endpoint and its connection.";
}

/// Request a new connection for an endpoint whose connection is Disconnected. The endpoint keeps its name and addresses.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{name}/reconnect", operation_id = "reconnect_endpoint", tag = "endpoint",
    params(("tenant" = Name, Path, description = "The owner"), ("name" = Name, Path, description = "Name of the endpoint")),
    request_body = ReconnectRequest,
    responses((status = 200, body = EndpointView, description = "The endpoint with its new connection"), WriteErrors),
)]
pub(in crate::api) async fn reconnect(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<Endpoints>,
    PathParameters(path): PathParameters<(String, String)>,
    JsonBody(request, _permit): JsonBody<ReconnectRequest>,
) -> ApiResult<EndpointView> {
    let reference = parse_path_reference(Kind::Endpoint, caller.tenant, &path.1)?;
    let principal = &*caller.caller;
    agent
        .change_and_present(
            principal,
            None,
            |state, context, _| reconnect_endpoint(state, context, &reference, request),
            |controller, _| {
                let record = crud::record(controller.state(), &reference)?;
                let view = Endpoint::present(controller, principal, &reference, record)?;
                Ok(Json(view))
            },
        )
        .await
}

impl TenantObject for Endpoint {
    const KIND: Kind = Kind::Endpoint;
    type Request = EndpointRequest;
    type View = EndpointView;
    type DeleteOptions = ();

    fn table(state: &State) -> &BTreeMap<Reference, Record<Self>> {
        &state.endpoints
    }

    fn present(
        controller: &Controller,
        caller: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<EndpointView> {
        let availability = &mut ServiceAvailability::default();
        let detail = CounterDetail::Drops;
        present::endpoint(controller, caller, reference, record, detail, availability)
    }

    fn present_in_list(
        controller: &Controller,
        caller: &Principal,
        reference: &Reference,
        record: &Record<Self>,
        availability: &mut ServiceAvailability,
    ) -> anyhow::Result<EndpointView> {
        let detail = CounterDetail::Totals;
        present::endpoint(controller, caller, reference, record, detail, availability)
    }

    fn delete(
        state: &State,
        _: &mut OpContext<'_>,
        reference: &Reference,
        (): (),
    ) -> Result<Vec<Change>, Problem> {
        delete_endpoint(state, reference)
    }
}

impl CreateObject for Endpoint {
    fn name(request: &EndpointRequest) -> Option<&Name> {
        request.name.as_ref()
    }

    fn create(
        state: &State,
        context: &mut OpContext<'_>,
        policy: &Policy,
        tenant: &Name,
        request: EndpointRequest,
    ) -> Result<Vec<Change>, Problem> {
        create_endpoint(state, context, policy, tenant, request)
    }
}

impl UpdateObject for Endpoint {
    fn update(
        state: &State,
        context: &mut OpContext<'_>,
        reference: &Reference,
        request: EndpointRequest,
    ) -> Result<Vec<Change>, Problem> {
        update_endpoint(state, context, reference, request)
    }
}
