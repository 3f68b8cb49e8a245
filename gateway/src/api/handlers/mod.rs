//! Handlers of requests, by kind of object.

pub(super) mod apply;
pub(super) mod backup;
pub(super) mod connections;
mod crud;
pub(super) mod endpoints;
pub(super) mod events;
pub(super) mod flows;
pub(super) mod identities;
pub(super) mod networks;
pub(super) mod services;
pub(super) mod status;
pub(super) mod tenants;
pub(super) mod tokens;
pub(super) mod webhooks;

/// Description of the `Idempotency-Key` header.
const IDEMPOTENCY_KEY: &str = "Key of the request, chosen by the client. A repetition with the same key and body within \
                               24 hours changes nothing and is answered like the first request: with 201 if that \
                               created the object. The same key with another request is refused with 422";
