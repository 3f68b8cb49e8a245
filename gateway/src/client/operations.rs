//! The API's operations, @generated from `docs/openapi.json` by `cargo xtask openapi`.
//!
//! Change the document, not this file.

use anyhow::Result;
use reqwest::Method;

use crate::client::{Body, Client, EMPTY_BODY, Query, types::*};

impl Client {
    /// Calls `GET /healthz`.
    ///
    /// Check that the agent responds.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn alive(&self) -> Result<String> {
        let path = "/healthz";
        let query = Query::default();
        self.call_for_text(Method::GET, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `POST /v1/apply`.
    ///
    /// Apply a manifest: all of its changes, or none.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn apply(
        &self,
        dry_run: Option<bool>,
        prune: Option<bool>,
        force: Option<bool>,
        replace: Option<bool>,
        body: &Manifest,
    ) -> Result<Applied> {
        let path = "/v1/apply";
        let query = Query::default()
            .with("dry_run", dry_run)
            .with("prune", prune)
            .with("force", force)
            .with("replace", replace);
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Calls `POST /v1/tenants/{tenant}/services/{name}/connections/{link_id}/approve`.
    ///
    /// Approve a connection, which then carries traffic.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/backup`.
    ///
    /// Back up the whole store with its secrets, consistent at one moment.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn backup(&self) -> Result<Vec<u8>> {
        let path = "/v1/backup";
        let query = Query::default();
        self.call_for_bytes(Method::GET, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `POST /v1/tenants/{tenant}/endpoints`.
    ///
    /// Create an endpoint.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `POST /v1/tenants/{tenant}/identities`.
    ///
    /// Map an external identity (OIDC claim, client certificate) to a role in the tenant.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `POST /v1/tenants/{tenant}/networks`.
    ///
    /// Create a network.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `POST /v1/tenants/{tenant}/services`.
    ///
    /// Create a service.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `POST /v1/tenants`.
    ///
    /// Create a tenant.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn create_tenant(&self, body: &TenantRequest) -> Result<TenantView> {
        let path = "/v1/tenants";
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Calls `POST /v1/tenants/{tenant}/tokens`.
    ///
    /// Create a token. Only this response shows its secret.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn create_token(&self, tenant: &Name, body: &TokenRequest) -> Result<NewTokenView> {
        let path = format!("/v1/tenants/{tenant}/tokens");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Calls `POST /v1/tenants/{tenant}/webhooks`.
    ///
    /// Create a webhook. Only this response shows the key of its signatures.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `DELETE /v1/tenants/{tenant}/endpoints/{name}`.
    ///
    /// Delete an endpoint and its connection.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn delete_endpoint(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `DELETE /v1/tenants/{tenant}/identities/{name}`.
    ///
    /// Delete an identity, with immediate effect on the callers that it matched.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn delete_identity(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/identities/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `DELETE /v1/tenants/{tenant}/networks/{name}`.
    ///
    /// Delete a network that no service or endpoint uses.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn delete_network(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/networks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `DELETE /v1/tenants/{tenant}/services/{name}`.
    ///
    /// Delete a service; its connections become Disconnected.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `DELETE /v1/tenants/{tenant}`.
    ///
    /// Delete a tenant that owns nothing.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn delete_tenant(&self, tenant: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `DELETE /v1/tenants/{tenant}/tokens/{name}`.
    ///
    /// Revoke a token, with immediate effect.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn delete_token(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/tokens/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `DELETE /v1/tenants/{tenant}/webhooks/{name}`.
    ///
    /// Delete a webhook.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn delete_webhook(&self, tenant: &Name, name: &Name) -> Result<()> {
        let path = format!("/v1/tenants/{tenant}/webhooks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call_without_answer(Method::DELETE, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `GET /v1/export`.
    ///
    /// Export all objects that the caller sees as a manifest. Objects with secrets are left out.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn export(&self) -> Result<Manifest> {
        let path = "/v1/export";
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/connections`.
    ///
    /// List the connections to all services in which the caller has a role.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/tenants/{tenant}/endpoints`.
    ///
    /// List a tenant's endpoints, without the drops by reason.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/events`.
    ///
    /// List or follow the events that the caller may see.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/flows`.
    ///
    /// List flows, in no order. Flows that are opened or closed between two pages may be missing.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn list_flows(
        &self,
        endpoint: Option<&Reference>,
        tenant: Option<&Name>,
        client: Option<&IpAddress>,
        backend: Option<&IpAddress>,
        after: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Page<FlowView>> {
        let path = "/v1/flows";
        let query = Query::default()
            .with("endpoint", endpoint)
            .with("tenant", tenant)
            .with("client", client)
            .with("backend", backend)
            .with("after", after)
            .with("limit", limit);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/identities`.
    ///
    /// List a tenant's identities.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/tenants/{tenant}/networks`.
    ///
    /// List a tenant's networks.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/tenants/{tenant}/services/{name}/connections`.
    ///
    /// List the connections to a service.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/tenants/{tenant}/services`.
    ///
    /// List a tenant's services.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/tenants`.
    ///
    /// List the tenants in which the caller has a role; for the operator, all tenants.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn list_tenants(
        &self,
        limit: Option<u64>,
        after: Option<&str>,
    ) -> Result<Page<TenantView>> {
        let path = "/v1/tenants";
        let query = Query::default().with("limit", limit).with("after", after);
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/tokens`.
    ///
    /// List a tenant's tokens.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/tenants/{tenant}/webhooks`.
    ///
    /// List a tenant's webhooks.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /readyz`.
    ///
    /// Check that the data path is in sync with the configuration.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn ready(&self) -> Result<String> {
        let path = "/readyz";
        let query = Query::default();
        self.call_for_text(Method::GET, path, &query, EMPTY_BODY)
            .await
    }

    /// Calls `POST /v1/tenants/{tenant}/endpoints/{name}/reconnect`.
    ///
    /// Request a new connection for an endpoint whose connection is Disconnected. The endpoint keeps its name and addresses.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn reconnect_endpoint(
        &self,
        tenant: &Name,
        name: &Name,
        body: &ReconnectRequest,
    ) -> Result<EndpointView> {
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}/reconnect");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::POST, path, &query, Body::Json(body))
            .await
    }

    /// Calls `POST /v1/tenants/{tenant}/services/{name}/connections/{link_id}/reject`.
    ///
    /// Reject a connection, or revoke its approval; it can be approved later.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `POST /v1/tenants/{tenant}/services/{name}/connections/{link_id}/remove`.
    ///
    /// Remove a connection permanently.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `POST /v1/restore`.
    ///
    /// Replace all state with a backup.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/whoami`.
    ///
    /// Show the authenticated identity of the caller, and its roles.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_caller(&self) -> Result<CallerView> {
        let path = "/v1/whoami";
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/services/{name}/connections/{link_id}`.
    ///
    /// Show a connection.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `GET /v1/tenants/{tenant}/endpoints/{name}`.
    ///
    /// Show an endpoint.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_endpoint(&self, tenant: &Name, name: &Name) -> Result<EndpointView> {
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/identities/{name}`.
    ///
    /// Show an identity.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_identity(&self, tenant: &Name, name: &Name) -> Result<IdentityView> {
        let path = format!("/v1/tenants/{tenant}/identities/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/networks/{name}`.
    ///
    /// Show a network.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_network(&self, tenant: &Name, name: &Name) -> Result<NetworkView> {
        let path = format!("/v1/tenants/{tenant}/networks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/services/{name}`.
    ///
    /// Show a service.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_service(&self, tenant: &Name, name: &Name) -> Result<ServiceView> {
        let path = format!("/v1/tenants/{tenant}/services/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/status`.
    ///
    /// Show the gateway's status.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_status(&self) -> Result<StatusView> {
        let path = "/v1/status";
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}`.
    ///
    /// Show a tenant.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_tenant(&self, tenant: &Name) -> Result<TenantView> {
        let path = format!("/v1/tenants/{tenant}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/tokens/{name}`.
    ///
    /// Show a token.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_token(&self, tenant: &Name, name: &Name) -> Result<TokenView> {
        let path = format!("/v1/tenants/{tenant}/tokens/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `GET /v1/tenants/{tenant}/webhooks/{name}`.
    ///
    /// Show a webhook.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn show_webhook(&self, tenant: &Name, name: &Name) -> Result<WebhookView> {
        let path = format!("/v1/tenants/{tenant}/webhooks/{name}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::GET, path, &query, EMPTY_BODY).await
    }

    /// Calls `PUT /v1/tenants/{tenant}/endpoints/{name}`.
    ///
    /// Change an endpoint's labels; its service, resource and addresses never change.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `PUT /v1/tenants/{tenant}/networks/{name}`.
    ///
    /// Change a network.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `PUT /v1/tenants/{tenant}/services/{name}`.
    ///
    /// Change a service.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
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

    /// Calls `PUT /v1/tenants/{tenant}`.
    ///
    /// Change a tenant's quotas and labels.
    ///
    /// # Errors
    /// If the agent refuses the request or can't be reached.
    pub async fn update_tenant(&self, tenant: &Name, body: &TenantRequest) -> Result<TenantView> {
        let path = format!("/v1/tenants/{tenant}");
        let path = path.as_str();
        let query = Query::default();
        self.call(Method::PUT, path, &query, Body::Json(body)).await
    }
}
