//! Principals, their roles in tenants, and the permissions that roles include. Pure.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, Problem, ProblemCode};

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
    const fn purpose(self) -> &'static str {
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

/// Extent of a principal's access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Access to everything.
    Operator,
    /// Access by role in these tenants. No other tenant is visible to the principal.
    Tenants(BTreeMap<Name, Role>),
}

/// Returns the operator's name in events, with the user id of the control socket's peer.
#[must_use]
pub fn operator_name(uid: Option<u32>) -> String {
    match uid {
        Some(uid) => format!("operator (uid {uid})"),
        None => "operator".to_owned(),
    }
}

/// Returns true if the name in a record is the operator's. Only the exact form counts, because records of earlier
/// versions may hold names that their owners chose.
#[must_use]
pub fn is_operator_name(name: &str) -> bool {
    let uid = name
        .strip_prefix("operator (uid ")
        .and_then(|rest| rest.strip_suffix(')'));
    name == "operator" || uid.is_some_and(|uid| uid.parse::<u32>().is_ok())
}

/// Caller of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Stable, unique name that nobody can choose: `token UID`, `oidc:ISSUER#SUBJECT`,
    /// `certificate sha256:FINGERPRINT` or `operator uid N`. It is the key of everything that is stored for each
    /// principal.
    pub identity: String,
    /// Name that records and events show. For a token of the gateway it is the owner's name for the token and the
    /// identity; for other principals the identity comes first.
    pub name: String,
    /// Origin of the request: `socket`, or an IP address.
    pub from: String,
    /// Access of the principal.
    pub access: Access,
}

impl Principal {
    /// Returns the operator as a principal with this name and origin.
    #[must_use]
    pub fn operator(name: &str, from: &str) -> Self {
        Self {
            identity: name.to_owned(),
            name: name.to_owned(),
            from: from.to_owned(),
            access: Access::Operator,
        }
    }

    /// Returns true if this principal is the earlier one and has lost none of its permissions.
    #[must_use]
    pub fn includes(&self, earlier: &Self) -> bool {
        let access = match (&self.access, &earlier.access) {
            (Access::Operator, Access::Operator) => true,
            (Access::Tenants(now), Access::Tenants(then)) => then
                .iter()
                .all(|(tenant, role)| now.get(tenant).is_some_and(|now| now.union(*role) == *now)),
            _ => false,
        };
        access && self.identity == earlier.identity
    }

    /// Returns true if the principal is the operator.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.access == Access::Operator
    }

    /// Returns true if the tenant is visible to the principal.
    #[must_use]
    pub fn can_see(&self, tenant: &Name) -> bool {
        match &self.access {
            Access::Operator => true,
            Access::Tenants(roles) => roles.contains_key(tenant),
        }
    }

    /// Requires a permission in the tenant. Neither the refusal nor the time that it takes reveals the existence of a
    /// tenant in which the principal has no role, because the state is not looked up.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`] without a role in the tenant, else [`ProblemCode::Forbidden`].
    pub fn require(&self, tenant: &Name, permission: Permission) -> Result<(), Problem> {
        let Access::Tenants(roles) = &self.access else {
            return Ok(());
        };
        let role = roles
            .get(tenant)
            .ok_or_else(|| Problem::no_tenant(tenant))?;
        if role.allows(permission) {
            return Ok(());
        }
        let detail = format!(
            "{} has role {role} in tenant {tenant}, and may not {}",
            self.name,
            permission.purpose()
        );
        Err(Problem::new(ProblemCode::Forbidden, detail))
    }

    /// Requires a role in at least one tenant.
    ///
    /// # Errors
    /// [`ProblemCode::Forbidden`].
    pub fn require_any_role(&self) -> Result<(), Problem> {
        match &self.access {
            Access::Tenants(roles) if roles.is_empty() => {
                let detail = format!(
                    "{} has no role in any tenant: ask a tenant's admin for one",
                    self.name
                );
                Err(Problem::new(ProblemCode::Forbidden, detail))
            }
            _ => Ok(()),
        }
    }

    /// Requires the operator.
    ///
    /// # Errors
    /// [`ProblemCode::Forbidden`].
    pub fn require_operator(&self) -> Result<(), Problem> {
        if self.is_operator() {
            return Ok(());
        }
        let detail = format!(
            "{} may not {}",
            self.name,
            Permission::ManageGateway.purpose()
        );
        Err(Problem::new(ProblemCode::Forbidden, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(role: Role) -> Principal {
        Principal {
            identity: "token 1".to_owned(),
            name: "a/token".to_owned(),
            from: "192.0.2.1".to_owned(),
            access: Access::Tenants([("a".parse().unwrap(), role)].into()),
        }
    }

    #[test]
    fn each_role_includes_exactly_its_permissions() {
        use Permission::*;
        for (role, allowed) in [
            (Role::Viewer, &[Read][..]),
            (Role::Consumer, &[Read, Endpoints]),
            (Role::Provider, &[Read, Services, Decisions]),
            (
                Role::Admin,
                &[Read, Endpoints, Services, Decisions, ManageCredentials],
            ),
        ] {
            for permission in [
                Read,
                Endpoints,
                Services,
                Decisions,
                ManageCredentials,
                ManageGateway,
            ] {
                let given = principal(role).require(&"a".parse().unwrap(), permission);
                assert_eq!(given.is_ok(), allowed.contains(&permission), "{role}");
                if let Err(problem) = given {
                    assert_eq!(problem.code, ProblemCode::Forbidden);
                }
            }
            assert_eq!(role.to_string().parse(), Ok(role));
        }
    }

    #[test]
    fn includes_holds_after_a_gained_role_and_fails_after_a_lost_one() {
        let principal_with = |roles: &[(&str, Role)]| {
            let roles = roles
                .iter()
                .map(|(tenant, role)| (tenant.parse().unwrap(), *role));
            Principal {
                access: Access::Tenants(roles.collect()),
                ..principal(Role::Viewer)
            }
        };
        let earlier = principal_with(&[("a", Role::Provider)]);
        for more in [
            principal_with(&[("a", Role::Provider)]),
            principal_with(&[("a", Role::Admin)]),
            principal_with(&[("a", Role::Provider), ("b", Role::Viewer)]),
        ] {
            assert!(more.includes(&earlier), "{more:?}");
        }
        for less in [
            principal_with(&[]),
            principal_with(&[("a", Role::Viewer)]),
            principal_with(&[("a", Role::Consumer)]),
            principal_with(&[("b", Role::Provider)]),
            Principal {
                identity: "another".to_owned(),
                ..principal_with(&[("a", Role::Provider)])
            },
            Principal {
                access: Access::Operator,
                ..principal_with(&[])
            },
        ] {
            assert!(!less.includes(&earlier), "{less:?}");
        }
    }

    #[test]
    fn union_of_roles_includes_the_permissions_of_both() {
        for a in Role::ALL {
            for b in Role::ALL {
                for permission in [
                    Permission::Read,
                    Permission::Endpoints,
                    Permission::Services,
                    Permission::Decisions,
                    Permission::ManageCredentials,
                ] {
                    let either = a.allows(permission) || b.allows(permission);
                    assert!(a.union(b).allows(permission) || !either, "{a} {b}");
                }
                assert_eq!(a.union(b), b.union(a));
            }
            assert_eq!(a.union(a), a);
        }
    }

    #[test]
    fn only_operator_names_are_recognized_as_the_operator() {
        assert!(
            is_operator_name(&operator_name(Some(0))) && is_operator_name(&operator_name(None))
        );
        for other in [
            "operator of https://idp",
            "operator (uid 0) of https://idp",
            "operator (uid x)",
            "operator (uid )",
            "Operator",
            "token operator/operator",
        ] {
            assert!(!is_operator_name(other), "{other}");
        }
    }

    #[test]
    fn a_tenant_without_a_role_is_not_found() {
        let problem = principal(Role::Admin)
            .require(&"b".parse().unwrap(), Permission::Read)
            .unwrap_err();
        assert_eq!(problem, Problem::no_tenant(&"b".parse().unwrap()));
        let operator = Principal {
            access: Access::Operator,
            ..principal(Role::Viewer)
        };
        assert!(operator.require_operator().is_ok());
        assert!(operator.require_any_role().is_ok());
        assert!(principal(Role::Viewer).require_any_role().is_ok());
        let nobody = Principal {
            access: Access::Tenants(BTreeMap::new()),
            ..principal(Role::Viewer)
        };
        let refusal = nobody.require_any_role().unwrap_err();
        assert_eq!(refusal.code, ProblemCode::Forbidden);
        assert!(principal(Role::Admin).require_operator().is_err());
    }
}
