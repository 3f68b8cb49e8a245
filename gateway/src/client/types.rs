//! Types of the OpenAPI document's schemas, by their schema names.

pub use crate::{
    api::{apply::Applied, connections::DecisionRequest, page::Page, view::*},
    model::{
        ConnectionState, Kind, Name, Reference,
        endpoint::EndpointRequest,
        event::{Action, Event},
        identity::IdentityRequest,
        manifest::Manifest,
        network::NetworkRequest,
        service::ServiceRequest,
        tenant::TenantRequest,
        token::TokenRequest,
        webhook::WebhookRequest,
    },
    store::RestorePlan,
};
