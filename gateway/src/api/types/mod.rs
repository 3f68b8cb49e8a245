//! Types of the API as they are on the wire: requests, parameters, views and problem documents.
//!
//! They depend on the model only, so that the client links neither the agent nor its runtime. [`present`] makes views
//! of the controller's state.
//!
//! [`present`]: crate::api::present

// These types are the public API: users read their documentation in the OpenAPI document.
#![warn(missing_docs)]

mod access;
mod backup;
mod caller;
mod connection;
mod endpoint;
mod event;
mod flow;
mod manifest;
mod network;
mod page;
mod problem;
mod service;
mod status;
mod tenant;

pub use self::{
    access::{IdentityView, NewTokenView, NewWebhookView, TokenView, WebhookView},
    backup::RestoreParameters,
    caller::CallerView,
    connection::{ConnectionStatus, ConnectionView, ConnectionsRequest, DecisionRequest},
    endpoint::{AddressStatus, Counters, EndpointSpec, EndpointStatus, EndpointView},
    event::EventsRequest,
    flow::{FlowView, FlowsRequest},
    manifest::{Applied, ApplyParameters},
    network::{AttachmentStatus, DrainingAddress, NetworkSpec, NetworkStatus, NetworkView},
    page::{MAX_ITEMS, Page, PageRequest},
    problem::ProblemDocument,
    service::{
        BackendStatus, DeleteServiceParameters, NatAddressStatus, ServiceStatus, ServiceView,
    },
    status::{Backends, Objects, StatusView},
    tenant::{TenantSpec, TenantStatus, TenantView, Usage},
};
pub use crate::{
    model::{
        ConnectionState, Kind, Name, Reference,
        endpoint::{EndpointRequest, ReconnectRequest},
        event::{Action, Event},
        identity::IdentityRequest,
        manifest::Manifest,
        network::NetworkRequest,
        service::ServiceRequest,
        tenant::TenantRequest,
        token::TokenRequest,
        webhook::{WebhookRequest, WebhookStatus},
    },
    store::RestorePlan,
};

/// Declares an object with its status.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident: $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
        pub struct $name {
            /// Identity, version and times.
            #[serde(flatten)]
            pub meta: Meta,
            /// The owner; absent for a tenant itself.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub tenant: Option<Name>,
            /// The fields that its user set.
            #[serde(flatten)]
            pub spec: $spec,
            /// Observed by the gateway.
            pub status: $status,
        }

        impl $name {
            /// Returns the object's reference; for a tenant, its name.
            #[must_use]
            pub fn reference(&self) -> String {
                match &self.tenant {
                    Some(tenant) => format!("{tenant}/{}", self.meta.name),
                    None => self.meta.name.to_string(),
                }
            }
        }
    };
}

use view;
