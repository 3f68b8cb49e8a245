//! Endpoints: the consumer's side of private links.

use std::collections::BTreeMap;

use crate::{
    agent::controller::Controller,
    api::{
        handlers::crud::{CreateObject, TenantObject, UpdateObject, crud},
        present::{self, CounterDetail},
        types::EndpointView,
    },
    model::{
        Change, Endpoint, Kind, Name, OpContext, Principal, Problem, Record, Reference, State,
        endpoint::EndpointRequest,
        operations::{Policy, create_endpoint, delete_endpoint, update_endpoint},
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
        present::endpoint(controller, caller, reference, record, CounterDetail::Drops)
    }

    fn present_in_list(
        controller: &Controller,
        caller: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<EndpointView> {
        present::endpoint(controller, caller, reference, record, CounterDetail::Totals)
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
