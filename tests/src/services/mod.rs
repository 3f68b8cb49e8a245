//! The agent, and the services around it.

pub mod agent;
pub mod api_fixture;
pub mod nginx;
pub mod oidc_provider;
pub mod test_ca;
pub mod tls_fixture;
pub mod unix_proxy;
