//! Objects as users see them: what they set, and in `status` what the gateway observed.

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

/// An object with its status.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident: $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
        pub struct $name {
            /// Identity and history.
            #[serde(flatten)]
            pub meta: Meta,
            /// The owner; none for a tenant itself.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub tenant: Option<Name>,
            /// What its user set.
            #[serde(flatten)]
            pub spec: $spec,
            /// What the gateway observed.
            pub status: $status,
        }

        impl $name {
            /// The object's reference, or its name for a tenant.
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
