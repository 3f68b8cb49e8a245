//! The routes, and the OpenAPI document that is generated from them.

use axum::{
    Extension, Router, body::Bytes, extract::DefaultBodyLimit, http::header::CONTENT_TYPE,
    routing::get,
};
use utoipa::{
    OpenApi,
    openapi::{
        self,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use crate::api::{
    AppState,
    handlers::{
        apply, backup, connections, endpoints, events, flows, identities, networks, services,
        status, tenants, tokens, webhooks,
    },
    limits::{BodyClass, MAX_BACKUP_BYTES},
    types::ProblemDocument,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Private Link Gateway",
        description = "The gateway offers a provider's service at a private IP address in a consumer's network. \
                       Lists are paginated. Errors are problem documents (RFC 9457) with a stable code. An \
                       object that the caller may not see is reported as not found."
    ),
    components(schemas(ProblemDocument)),
    security(("token" = []))
)]
struct BaseDocument;

fn base_document() -> openapi::OpenApi {
    let mut base = BaseDocument::openapi();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of the gateway (`plgw tenant token create`), or a token of an OpenID Connect \
             issuer that the gateway trusts. The control socket needs no token.",
        ));
    base.components
        .get_or_insert_default()
        .add_security_scheme("token", SecurityScheme::Http(token.build()));
    base
}

/// Returns the authenticated routes, and the OpenAPI document of all routes.
pub(super) fn routes() -> (Router<AppState>, openapi::OpenApi) {
    let (router, document) = OpenApiRouter::with_openapi(base_document())
        .routes(routes!(apply::post).layer(Extension(BodyClass::Manifest)))
        .routes(routes!(apply::get))
        .routes(routes!(backup::get))
        .routes(routes!(backup::post).layer(DefaultBodyLimit::max(MAX_BACKUP_BYTES)))
        .routes(routes!(status::show))
        .routes(routes!(status::caller))
        .routes(routes!(flows::list))
        .routes(routes!(events::list))
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show, tenants::update, tenants::delete))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::show, tokens::delete))
        .routes(routes!(identities::list, identities::create))
        .routes(routes!(identities::show, identities::delete))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::show, webhooks::delete))
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::show, networks::update, networks::delete))
        .routes(routes!(services::list, services::create))
        .routes(routes!(services::show, services::update, services::delete))
        .routes(routes!(connections::list_all))
        .routes(routes!(connections::list))
        .routes(routes!(connections::show))
        .routes(routes!(connections::approve))
        .routes(routes!(connections::reject))
        .routes(routes!(connections::remove))
        .routes(routes!(endpoints::list, endpoints::create))
        .routes(routes!(
            endpoints::show,
            endpoints::update,
            endpoints::delete
        ))
        .routes(routes!(endpoints::reconnect))
        .split_for_parts();
    let (_, open) = unauthenticated_router().split_for_parts();
    (router, document.merge_from(open))
}

fn unauthenticated_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(status::alive))
        .routes(routes!(status::ready))
}

/// Returns the routes that need no authentication.
pub(super) fn unauthenticated_routes(document: &openapi::OpenApi) -> Router<AppState> {
    // All responses share the text: clients that request it and do not read must not take a copy each.
    let text = Bytes::from(document.to_pretty_json().unwrap_or_default());
    let (router, _) = unauthenticated_router().split_for_parts();
    let serve = async move || ([(CONTENT_TYPE, "application/json")], text.clone());
    router.route("/openapi.json", get(serve))
}

/// Returns the OpenAPI document.
#[must_use]
pub fn document() -> openapi::OpenApi {
    routes().1
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
