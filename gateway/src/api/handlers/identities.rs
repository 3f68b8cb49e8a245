//! Identities: mappings of external identities (OIDC claims, client certificates) to roles in a tenant.

use std::collections::BTreeMap;

use crate::{
    agent::controller::Controller,
    api::{
        handlers::crud::{CreateObject, TenantObject, crud},
        present,
        types::IdentityView,
    },
    model::{
        Change, Identity, Kind, Name, OpContext, Principal, Problem, Record, Reference, State,
        identity::IdentityRequest,
        operations::{Policy, create_identity, delete_identity},
    },
};

crud! {
    Identity: IdentityRequest => IdentityView, ManageCredentials, "identity", "identities",
    "/v1/tenants/{tenant}/identities", "/v1/tenants/{tenant}/identities/{name}";
    list "List a tenant's identities.";
    create "Map an external identity (OIDC claim, client certificate) to a role in the tenant.";
    show "Show an identity.";
    delete "Delete an identity, with immediate effect on the callers that it matched.";
}

impl TenantObject for Identity {
    const KIND: Kind = Kind::Identity;
    type Request = IdentityRequest;
    type View = IdentityView;
    type DeleteOptions = ();

    fn table(state: &State) -> &BTreeMap<Reference, Record<Self>> {
        &state.identities
    }

    fn present(
        _: &Controller,
        _: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<IdentityView> {
        Ok(present::identity(reference, record))
    }

    fn delete(
        state: &State,
        _: &mut OpContext<'_>,
        reference: &Reference,
        (): (),
    ) -> Result<Vec<Change>, Problem> {
        delete_identity(state, reference)
    }
}

impl CreateObject for Identity {
    fn name(request: &IdentityRequest) -> Option<&Name> {
        Some(&request.name)
    }

    fn create(
        state: &State,
        context: &mut OpContext<'_>,
        policy: &Policy,
        tenant: &Name,
        request: IdentityRequest,
    ) -> Result<Vec<Change>, Problem> {
        create_identity(state, context, policy, tenant, request)
    }
}
