//! Services: the provider's side of private links.

use std::collections::BTreeMap;

use crate::{
    agent::controller::Controller,
    api::{
        handlers::crud::{CreateObject, TenantObject, UpdateObject, crud},
        present,
        types::{DeleteServiceParameters, ServiceView},
    },
    model::{
        Change, Kind, Name, OpContext, Principal, Problem, Record, Reference, Service, State,
        operations::{Policy, create_service, delete_service, update_service},
        service::ServiceRequest,
    },
};

crud! {
    Service: ServiceRequest => ServiceView, Services, "service", "services",
    "/v1/tenants/{tenant}/services", "/v1/tenants/{tenant}/services/{name}";
    list "List a tenant's services.";
    create(idempotent) "Create a service.";
    show "Show a service.";
    update "Change a service.";
    delete(DeleteServiceParameters) "Delete a service; its connections become Disconnected.";
}

impl TenantObject for Service {
    const KIND: Kind = Kind::Service;
    type Request = ServiceRequest;
    type View = ServiceView;
    type DeleteOptions = DeleteServiceParameters;

    fn table(state: &State) -> &BTreeMap<Reference, Record<Self>> {
        &state.services
    }

    fn present(
        controller: &Controller,
        _: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<ServiceView> {
        Ok(present::service(controller, reference, record))
    }

    fn delete(
        state: &State,
        context: &mut OpContext<'_>,
        reference: &Reference,
        options: DeleteServiceParameters,
    ) -> Result<Vec<Change>, Problem> {
        delete_service(state, context, reference, options.force)
    }
}

impl CreateObject for Service {
    fn name(request: &ServiceRequest) -> Option<&Name> {
        request.name.as_ref()
    }

    fn create(
        state: &State,
        context: &mut OpContext<'_>,
        policy: &Policy,
        tenant: &Name,
        request: ServiceRequest,
    ) -> Result<Vec<Change>, Problem> {
        create_service(state, context, policy, tenant, request)
    }
}

impl UpdateObject for Service {
    fn update(
        state: &State,
        context: &mut OpContext<'_>,
        reference: &Reference,
        request: ServiceRequest,
    ) -> Result<Vec<Change>, Problem> {
        update_service(state, context, reference, request)
    }
}
