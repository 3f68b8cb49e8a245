//! Access of tenants over TLS with tokens, client certificates and JWTs of OIDC issuers.
//!
//! An object that a caller may not see is indistinguishable from a missing one.

mod connections;
mod credentials;
mod listener;
mod permissions;
