//! The HTTP API. Handlers turn requests into operations of the model, and their outcomes into JSON.
//!
//! Authorization is the only decision that is taken here: see `authorize`. All others are the model's.

#![allow(unused_qualifications, reason = "utoipa's macros make them")]

mod admission;
mod authenticate;
mod authorize;
mod decode;
mod document;
mod handlers;
mod limits;
mod listener;
mod page;
pub mod present;
mod request;
mod response;
pub mod socket;
mod source;
pub mod tls;
pub mod types;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
};

use crate::{
    agent::Agent,
    api::{authenticate::AuthenticationState, response::ApiError},
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
    let authenticate = middleware::from_fn_with_state(gate, authenticate::authenticate);
    let meter = middleware::from_fn_with_state(admission, authenticate::meter_unauthenticated);
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
