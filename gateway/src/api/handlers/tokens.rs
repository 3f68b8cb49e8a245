//! Tokens: bearer credentials of a tenant.

use std::collections::BTreeMap;

use axum::extract::State as AgentState;

use crate::{
    agent::controller::Controller,
    api::{
        AppState,
        authorize::{Authorized, ManageCredentials},
        handlers::crud::{self, TenantObject, crud},
        present,
        request::JsonBody,
        response::{CreateResult, WriteErrors, create_response},
        types::{NewTokenView, TokenView},
    },
    model::{
        Change, Identifiers as _, Kind, Name, OpContext, Principal, Problem, RandomIdentifiers,
        Record, Reference, State, Token,
        operations::{create_token, delete_token},
        token::{self, TokenRequest},
    },
};

crud! {
    Token: TokenRequest => TokenView, ManageCredentials, "token", "tokens",
    "/v1/tenants/{tenant}/tokens", "/v1/tenants/{tenant}/tokens/{name}";
    list "List a tenant's tokens.";
    show "Show a token.";
    delete "Revoke a token, with immediate effect.";
}

/// Create a token. Only this response shows its secret.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/tokens", operation_id = "create_token", tag = "token",
    params(("tenant" = Name, Path, description = "The owner")),
    request_body = TokenRequest,
    responses((status = 201, body = NewTokenView, description = "The token was created"), WriteErrors),
)]
pub(in crate::api) async fn create(
    AgentState(agent): AgentState<AppState>,
    caller: Authorized<ManageCredentials>,
    JsonBody(request, _permit): JsonBody<TokenRequest>,
) -> CreateResult<NewTokenView> {
    let reference = Reference::new(caller.tenant.clone(), request.name.clone());
    let secret = token::token_text(RandomIdentifiers.secret());
    agent
        .change_and_present(
            &caller.caller,
            None,
            |state, context, _| create_token(state, context, &caller.tenant, request, &secret),
            |controller, created| {
                let record = crud::record(controller.state(), &reference)?;
                let view = present::new_token(&reference, record, secret.clone());
                Ok(create_response(created, view))
            },
        )
        .await
}

impl TenantObject for Token {
    const KIND: Kind = Kind::Token;
    type Request = TokenRequest;
    type View = TokenView;
    type DeleteOptions = ();

    fn table(state: &State) -> &BTreeMap<Reference, Record<Self>> {
        &state.tokens
    }

    fn present(
        _: &Controller,
        _: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<TokenView> {
        Ok(present::token(reference, record))
    }

    fn delete(
        state: &State,
        _: &mut OpContext<'_>,
        reference: &Reference,
        (): (),
    ) -> Result<Vec<Change>, Problem> {
        delete_token(state, reference)
    }
}
