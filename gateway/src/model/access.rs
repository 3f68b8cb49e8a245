//! Who may do what. Pure.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, Problem, ProblemCode};

/// What somebody is within a tenant.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything that the tenant has.
    Viewer,
    /// And looks after its endpoints.
    Consumer,
    /// Sees everything, looks after its services and decides about their connections.
    Provider,
    /// All of it, and who else may act for the tenant.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Consumer, Self::Provider, Self::Admin];

    /// Whether the role includes the permission.
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

    /// The least that includes the permissions of both.
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
            format!("{shown:?} is no role: viewer, consumer, provider or admin")
        })
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// To see what a tenant has.
    Read,
    /// To create, change and delete a tenant's endpoints.
    Endpoints,
    /// To create, change and delete a tenant's services.
    Services,
    /// To decide about the connections to a tenant's services.
    Decisions,
    /// To say who may act for a tenant.
    ManageCredentials,
    /// To look after the gateway itself: tenants, quotas, and which interfaces are whose network.
    ManageGateway,
}

impl Permission {
    /// What it is for, as the end of a sentence.
    const fn purpose(self) -> &'static str {
        match self {
            Self::Read => "see what it has",
            Self::Endpoints => "change its endpoints",
            Self::Services => "change its services",
            Self::Decisions => "decide about the connections to its services",
            Self::ManageCredentials => "say who may act for it",
            Self::ManageGateway => "do what only the gateway's operator may",
        }
    }
}

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Operator,
    /// What the roles allow, in these tenants. Nothing else exists for them.
    Tenants(BTreeMap<Name, Role>),
}

/// Returns the name of the operator in events, by the number of the user who has the control socket open.
#[must_use]
pub fn operator_name(uid: Option<u32>) -> String {
    match uid {
        Some(uid) => format!("operator (uid {uid})"),
        None => "operator".to_owned(),
    }
}

/// Returns whether the name in a record is the operator's. Records of earlier versions may hold names that their
/// owners chose, so nothing but the exact form counts.
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
    /// Stable name that no other principal has, and that nobody can choose: `token UID`, `oidc:ISSUER#SUBJECT`,
    /// `certificate sha256:FINGERPRINT` or `operator uid N`. Whatever is kept for each principal is kept by this.
    pub identity: String,
    /// Name that records and events show. Tokens of the gateway show their owner's name for them and the identity,
    /// others the identity first.
    pub name: String,
    /// From where: `socket`, or an IP address.
    pub from: String,
    /// What it may do.
    pub access: Access,
}

impl Principal {
    /// The operator, by this name, from there.
    #[must_use]
    pub fn operator(name: &str, from: &str) -> Self {
        Self {
            identity: name.to_owned(),
            name: name.to_owned(),
            from: from.to_owned(),
            access: Access::Operator,
        }
    }

    /// Returns whether this principal is the earlier one, and may still do all that it might.
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

    /// Whether it is the operator.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.access == Access::Operator
    }

    /// Whether the tenant exists for it.
    #[must_use]
    pub fn can_see(&self, tenant: &Name) -> bool {
        match &self.access {
            Access::Operator => true,
            Access::Tenants(roles) => roles.contains_key(tenant),
        }
    }

    /// Refuses what it may not do in the tenant. Whether a tenant exists in which it has no role can't
    /// be told from the refusal, nor from the time that it takes: nothing is looked up.
    ///
    /// # Errors
    /// [`Code::NotFound`] without a role in the tenant, else [`Code::Forbidden`].
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
            "{} is {role} of tenant {tenant}, and may not {}",
            self.name,
            permission.purpose()
        );
        Err(Problem::new(ProblemCode::Forbidden, detail))
    }

    /// Refuses a principal that has no role in any tenant.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
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

    /// Refuses everyone but the operator.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
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
    fn the_table_of_roles() {
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
    fn a_principal_that_gains_a_role_is_still_the_same_and_one_that_loses_it_is_not() {
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
    fn roles_combine() {
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
