//! Roles in tenants, and the permissions that they include. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Role of a principal in one tenant.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything that the tenant owns.
    Viewer,
    /// Reads everything and manages the tenant's endpoints.
    Consumer,
    /// Reads everything, manages the tenant's services and decides about their connections.
    Provider,
    /// Has every permission of the other roles, and manages the tenant's credentials and webhooks.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Consumer, Self::Provider, Self::Admin];

    /// Returns true if the role includes the permission.
    #[must_use]
    pub const fn allows(self, permission: Permission) -> bool {
        match permission {
            Permission::Read => true,
            Permission::Endpoints => matches!(self, Self::Consumer | Self::Admin),
            Permission::Services | Permission::Decisions => {
                matches!(self, Self::Provider | Self::Admin)
            }
            Permission::ManageCredentials => matches!(self, Self::Admin),
            Permission::ManageGateway => false,
        }
    }

    /// Returns the least role that includes the permissions of both.
    ///
    /// # Examples
    /// ```
    /// use gateway::model::Role;
    ///
    /// assert_eq!(Role::Viewer.union(Role::Consumer), Role::Consumer);
    /// assert_eq!(Role::Consumer.union(Role::Provider), Role::Admin);
    /// ```
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Viewer, role) | (role, Self::Viewer) => role,
            (Self::Consumer, Self::Consumer) => Self::Consumer,
            (Self::Provider, Self::Provider) => Self::Provider,
            _ => Self::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Viewer => "viewer",
            Self::Consumer => "consumer",
            Self::Provider => "provider",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut roles = Self::ALL.into_iter();
        roles.find(|role| role.to_string() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            format!("{shown:?} is not a role: use viewer, consumer, provider or admin")
        })
    }
}

/// Permission that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read what a tenant owns.
    Read,
    /// Create, change and delete a tenant's endpoints.
    Endpoints,
    /// Create, change and delete a tenant's services.
    Services,
    /// Decide about the connections to a tenant's services.
    Decisions,
    /// Manage a tenant's tokens, identities and webhooks.
    ManageCredentials,
    /// Manage the gateway itself: tenants, quotas, networks and their interfaces.
    ManageGateway,
}

impl Permission {
    /// Returns the purpose of the permission, worded to follow "may not".
    pub(crate) const fn purpose(self) -> &'static str {
        match self {
            Self::Read => "read its objects",
            Self::Endpoints => "change its endpoints",
            Self::Services => "change its services",
            Self::Decisions => "decide about the connections to its services",
            Self::ManageCredentials => "manage its credentials and webhooks",
            Self::ManageGateway => "do what is reserved for the gateway's operator",
        }
    }
}
