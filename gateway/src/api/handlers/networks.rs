//! Networks. Only the operator changes them, since they name interfaces of the host.

use std::collections::BTreeMap;

use crate::{
    agent::controller::Controller,
    api::{
        handlers::crud::{CreateObject, TenantObject, UpdateObject, crud},
        present,
        types::NetworkView,
    },
    model::{
        Change, Kind, Name, Network, OpContext, Principal, Problem, Record, Reference, State,
        network::NetworkRequest,
        operations::{Policy, create_network, delete_network, update_network},
    },
};

crud! {
    Network: NetworkRequest => NetworkView, ManageGateway, "network", "networks",
    "/v1/tenants/{tenant}/networks", "/v1/tenants/{tenant}/networks/{name}";
    list "List a tenant's networks.";
    create(idempotent) "Create a network.";
    show "Show a network.";
    update "Change a network.";
    delete "Delete a network that no service or endpoint uses.";
}

impl TenantObject for Network {
    const KIND: Kind = Kind::Network;
    type Request = NetworkRequest;
    type View = NetworkView;
    type DeleteOptions = ();

    fn table(state: &State) -> &BTreeMap<Reference, Record<Self>> {
        &state.networks
    }

    fn present(
        controller: &Controller,
        _: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<NetworkView> {
        Ok(present::network(controller, reference, record))
    }

    fn delete(
        state: &State,
        _: &mut OpContext<'_>,
        reference: &Reference,
        (): (),
    ) -> Result<Vec<Change>, Problem> {
        delete_network(state, reference)
    }
}

impl CreateObject for Network {
    fn name(request: &NetworkRequest) -> Option<&Name> {
        request.name.as_ref()
    }

    fn create(
        state: &State,
        context: &mut OpContext<'_>,
        policy: &Policy,
        tenant: &Name,
        request: NetworkRequest,
    ) -> Result<Vec<Change>, Problem> {
        create_network(state, context, policy, tenant, request)
    }
}

impl UpdateObject for Network {
    fn update(
        state: &State,
        context: &mut OpContext<'_>,
        reference: &Reference,
        request: NetworkRequest,
    ) -> Result<Vec<Change>, Problem> {
        update_network(state, context, reference, request)
    }
}
