//! The HTTP API. Handlers turn requests into operations of the model, and their outcomes into JSON.
//!
//! Authorization is the only decision that is taken here: see `caller`. All others are the model's.

#![allow(unused_qualifications, reason = "utoipa's macros make them")]

mod admission;
pub mod apply;
mod backup;
mod caller;
pub mod connections;
mod decode;
mod document;
mod endpoints;
pub mod events;
pub mod flows;
mod identities;
mod limits;
mod listener;
mod networks;
pub mod page;
mod request;
pub mod response;
pub mod services;
pub mod socket;
mod source;
mod status;
mod tenants;
pub mod tls;
mod tokens;
pub mod view;
mod webhooks;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
};

use crate::{
    agent::Agent,
    api::{caller::AuthenticationState, response::ApiError},
    model::{Problem, ProblemCode},
};

pub use {admission::Admission, document::document};

/// State that all handlers share.
type AppState = Arc<Agent>;

fn router(agent: AppState, admission: Arc<Admission>) -> Router {
    let (known, document) = document::routes();
    let gate = AuthenticationState {
        agent: Arc::clone(&agent),
        admission: Arc::clone(&admission),
    };
    let authenticate = middleware::from_fn_with_state(gate, caller::authenticate);
    let meter = middleware::from_fn_with_state(admission, caller::meter_unauthenticated);
    Router::new()
        .merge(known.route_layer(authenticate))
        .merge(document::unauthenticated_routes(&document))
        .fallback(async |uri: Uri| {
            let detail = format!("there is nothing at {}", uri.path());
            ApiError::from(Problem::new(ProblemCode::NotFound, detail))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let detail = format!("{} does not take {method}", uri.path());
            ApiError::from(Problem::new(ProblemCode::MethodNotAllowed, detail))
        })
        // `request` reads JSON bodies within limits of its own. No other extractor may read a body by accident.
        .layer(DefaultBodyLimit::max(0))
        .layer(meter)
        .with_state(agent)
}
