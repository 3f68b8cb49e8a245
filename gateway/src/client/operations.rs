//! The API's operations, @generated from `docs/openapi.json` by `cargo xtask openapi`.
//!
//! Change the document, not this file.

use anyhow::Result;
use reqwest::Method;

use crate::client::{Body, Client, EMPTY_BODY, Query, types::*};

impl Client {
    /// The agent answers.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn alive(&self) -> Result<String> {
        let path = "/healthz";
        let query = Query::default();
        self.call_for_text(Method::GET, path, &query, EMPTY_BODY)
            .await
    }

    /// Bring objects to what a manifest says: all of it, or nothing.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn apply(
        &self,
        dry_run: Option<bool>,
        prune: Option<bool>,
        force: Option<bool>,
        body: &Manifest,
    ) -> Result<Applied> {
        let path = "/v1/apply";
        let query = Query::default()
            .with("dry_run", dry_run)
            .with("prune", prune)
            .with("force", force);
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Let an endpoint's connection carry traffic.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn approve_connection(
        &self,
        tenant: &Name,
        name: &Name,
        link_id: u32,
        body: &DecisionRequest,
    ) -> Result<ConnectionView> {
        let path = format!("/v1/tenants/{tenant}/services/{name}/connections/{link_id}/approve");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// The whole store, secrets included, as it is at one moment.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn backup(&self) -> Result<Vec<u8>> {
        let path = "/v1/backup";
        let query = Query::default();
        self.call_for_bytes(Method::GET, path, &query, EMPTY_BODY)
            .await
    }

    /// Create an endpoint.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn create_endpoint(
        &self,
        tenant: &Name,
        body: &EndpointRequest,
    ) -> Result<EndpointView> {
        let path = format!("/v1/tenants/{tenant}/endpoints");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Say who, of those that another system knows, acts for the tenant.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn create_identity(
        &self,
        tenant: &Name,
        body: &IdentityRequest,
    ) -> Result<IdentityView> {
        let path = format!("/v1/tenants/{tenant}/identities");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Create a network.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn create_network(
        &self,
        tenant: &Name,
        body: &NetworkRequest,
    ) -> Result<NetworkView> {
        let path = format!("/v1/tenants/{tenant}/networks");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Create a service.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn create_service(
        &self,
        tenant: &Name,
        body: &ServiceRequest,
    ) -> Result<ServiceView> {
        let path = format!("/v1/tenants/{tenant}/services");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Create a tenant.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn create_tenant(&self, body: &TenantRequest) -> Result<TenantView> {
        let path = "/v1/tenants";
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Create a token. Its secret is shown in this answer only.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn create_token(&self, tenant: &Name, body: &TokenRequest) -> Result<NewTokenView> {
        let path = format!("/v1/tenants/{tenant}/tokens");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Create a webhook. The key of its signatures is shown in this answer only.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn create_webhook(
        &self,
        tenant: &Name,
        body: &WebhookRequest,
    ) -> Result<NewWebhookView> {
        let path = format!("/v1/tenants/{tenant}/webhooks");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Delete an endpoint; its connection is gone from both sides.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn delete_endpoint(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Remove an identity: those who were meant act for the tenant no more.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn delete_identity(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/identities/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Delete a network that nothing is in.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn delete_network(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/networks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Delete a service; its connections are Disconnected.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn delete_service(
        &self,
        tenant: &Name,
        name: &Name,
        force: Option<bool>,
    ) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/services/{name}");
        let path = path.as_str();
        let query = Query::default().with("force", force);
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Delete a tenant that owns nothing.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn delete_tenant(&self, tenant: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Revoke a token: from now on it is unknown.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn delete_token(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/tokens/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Delete a webhook.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn delete_webhook(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/webhooks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Write down everything that the caller sees, but for what has secrets.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn export(&self) -> Result<Manifest> {
        let path = "/v1/export";
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List the connections to all services in which the caller has a role.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_connections(
        &self,
        endpoint: Option<&Reference>,
        state: Option<&ConnectionState>,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<ConnectionView>> {
        let path = "/v1/connections";
        let query = Query::default()
            .with("endpoint", endpoint)
            .with("state", state)
            .with("limit", limit)
            .with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List a tenant's endpoints.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_endpoints(
        &self,
        tenant: &Name,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<EndpointView>> {
        let path = format!("/v1/tenants/{tenant}/endpoints");
        let path = path.as_str();
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List or follow the events that the caller may see.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_events(
        &self,
        after: Option<&str>,
        limit: Option<u64>,
        kind: Option<&Kind>,
        action: Option<&Action>,
        follow: Option<bool>,
    ) -> Result<Page<Event>> {
        let path = "/v1/events";
        let query = Query::default()
            .with("after", after)
            .with("limit", limit)
            .with("kind", kind)
            .with("action", action)
            .with("follow", follow);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List flows. They come and go, so there are no further pages: a larger limit shows more.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_flows(
        &self,
        endpoint: Option<&Reference>,
        limit: Option<u64>,
    ) -> Result<Page<FlowView>> {
        let path = "/v1/flows";
        let query = Query::default()
            .with("endpoint", endpoint)
            .with("limit", limit);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List a tenant's identities.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_identities(
        &self,
        tenant: &Name,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<IdentityView>> {
        let path = format!("/v1/tenants/{tenant}/identities");
        let path = path.as_str();
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List a tenant's networks.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_networks(
        &self,
        tenant: &Name,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<NetworkView>> {
        let path = format!("/v1/tenants/{tenant}/networks");
        let path = path.as_str();
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List the connections to a service.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_service_connections(
        &self,
        tenant: &Name,
        name: &Name,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<ConnectionView>> {
        let path = format!("/v1/tenants/{tenant}/services/{name}/connections");
        let path = path.as_str();
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List a tenant's services.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_services(
        &self,
        tenant: &Name,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<ServiceView>> {
        let path = format!("/v1/tenants/{tenant}/services");
        let path = path.as_str();
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List the tenants in which the caller has a role; all for the operator.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_tenants(
        &self,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<TenantView>> {
        let path = "/v1/tenants";
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List a tenant's tokens.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_tokens(
        &self,
        tenant: &Name,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<TokenView>> {
        let path = format!("/v1/tenants/{tenant}/tokens");
        let path = path.as_str();
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// List a tenant's webhooks.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn list_webhooks(
        &self,
        tenant: &Name,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<WebhookView>> {
        let path = format!("/v1/tenants/{tenant}/webhooks");
        let path = path.as_str();
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// The data path holds what it should.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn ready(&self) -> Result<String> {
        let path = "/readyz";
        let query = Query::default();
        self.call_for_text(Method::GET, path, &query, EMPTY_BODY)
            .await
    }

    /// Refuse a connection, or cut it off; it can be approved later.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn reject_connection(
        &self,
        tenant: &Name,
        name: &Name,
        link_id: u32,
        body: &DecisionRequest,
    ) -> Result<ConnectionView> {
        let path = format!("/v1/tenants/{tenant}/services/{name}/connections/{link_id}/reject");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// End a connection for good.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn remove_connection(
        &self,
        tenant: &Name,
        name: &Name,
        link_id: u32,
        body: &DecisionRequest,
    ) -> Result<ConnectionView> {
        let path = format!("/v1/tenants/{tenant}/services/{name}/connections/{link_id}/remove");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Put what is in a backup in the place of everything.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn restore(
        &self,
        dry_run: Option<bool>,
        foreign: Option<bool>,
        body: Vec<u8>,
    ) -> Result<RestorePlan> {
        let path = "/v1/restore";
        let query = Query::default()
            .with("dry_run", dry_run)
            .with("foreign", foreign);
        self.call(Method::POST, path, &query, Body::<()>::Bytes(body))
            .await
    }

    /// Who the gateway takes the caller for, and what the caller may do.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_caller(&self) -> Result<CallerView> {
        let path = "/v1/whoami";
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show a connection.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_connection(
        &self,
        tenant: &Name,
        name: &Name,
        link_id: u32,
    ) -> Result<ConnectionView> {
        let path = format!("/v1/tenants/{tenant}/services/{name}/connections/{link_id}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show an endpoint.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_endpoint(&self, tenant: &Name, name: &Name) -> Result<EndpointView> {
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show an identity.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_identity(&self, tenant: &Name, name: &Name) -> Result<IdentityView> {
        let path = format!("/v1/tenants/{tenant}/identities/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show a network.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_network(&self, tenant: &Name, name: &Name) -> Result<NetworkView> {
        let path = format!("/v1/tenants/{tenant}/networks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show a service.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_service(&self, tenant: &Name, name: &Name) -> Result<ServiceView> {
        let path = format!("/v1/tenants/{tenant}/services/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// How the gateway is.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_status(&self) -> Result<StatusView> {
        let path = "/v1/status";
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show a tenant.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_tenant(&self, tenant: &Name) -> Result<TenantView> {
        let path = format!("/v1/tenants/{tenant}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show a token.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_token(&self, tenant: &Name, name: &Name) -> Result<TokenView> {
        let path = format!("/v1/tenants/{tenant}/tokens/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Show a webhook.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn show_webhook(&self, tenant: &Name, name: &Name) -> Result<WebhookView> {
        let path = format!("/v1/tenants/{tenant}/webhooks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Change an endpoint's labels: what it is bound to never changes.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn update_endpoint(
        &self,
        tenant: &Name,
        name: &Name,
        body: &EndpointRequest,
    ) -> Result<EndpointView> {
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::PUT, path, &query, Body::Json(body)).await
    }

    /// Change a network.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn update_network(
        &self,
        tenant: &Name,
        name: &Name,
        body: &NetworkRequest,
    ) -> Result<NetworkView> {
        let path = format!("/v1/tenants/{tenant}/networks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::PUT, path, &query, Body::Json(body)).await
    }

    /// Change a service.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn update_service(
        &self,
        tenant: &Name,
        name: &Name,
        body: &ServiceRequest,
    ) -> Result<ServiceView> {
        let path = format!("/v1/tenants/{tenant}/services/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::PUT, path, &query, Body::Json(body)).await
    }

    /// Change a tenant's quotas and labels.
    ///
    /// # Errors
    /// The agent's refusal, or that it can't be reached.
    pub async fn update_tenant(&self, tenant: &Name, body: &TenantRequest) -> Result<TenantView> {
        let path = format!("/v1/tenants/{tenant}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::PUT, path, &query, Body::Json(body)).await
    }
}
