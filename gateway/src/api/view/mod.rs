//! Objects as the API shows them: the fields that users set, and in `status` what the gateway observed.

mod access;
mod caller;
mod connection;
mod endpoint;
mod flow;
mod network;
mod service;
mod status;
mod tenant;

pub use crate::model::webhook::WebhookStatus;
pub use access::{
    IdentityView, NewTokenView, NewWebhookView, TokenView, WebhookView, identity, new_token,
    new_webhook, token, webhook,
};
pub use caller::{CallerView, caller};
pub use connection::{ConnectionStatus, ConnectionView, connection};
pub use endpoint::{
    AddressStatus, CounterDetail, Counters, EndpointSpec, EndpointStatus, EndpointView, endpoint,
};
pub use flow::{FlowView, flow};
pub use network::{AttachmentStatus, NetworkSpec, NetworkStatus, NetworkView, network};
pub use service::{BackendStatus, NatAddressStatus, ServiceStatus, ServiceView, service};
pub use status::{Objects, StatusView, status};
pub use tenant::{TenantSpec, TenantStatus, TenantView, Usage, tenant};

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
