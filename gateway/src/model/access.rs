//! Principals, and the extent of their access. Pure.

use std::collections::BTreeMap;

use crate::model::{Name, Permission, Problem, ProblemCode, Role};

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
