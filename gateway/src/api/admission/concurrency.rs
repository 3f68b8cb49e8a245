//! Limits on what principals and tenants hold at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::{Access, Name, Principal};

/// A limiter of permits for each principal and each tenant. The operator is not limited.
#[derive(Debug)]
pub(in crate::api) struct ConcurrencyLimiter {
    max_per_principal: usize,
    max_per_tenant: usize,
    in_use: Mutex<PermitsInUse>,
}

#[derive(Debug, Default)]
struct PermitsInUse {
    principals: HashMap<String, usize>,
    tenants: HashMap<Name, usize>,
}

/// A permit, released when dropped.
#[derive(Debug)]
pub(in crate::api) struct ConcurrencyPermit {
    limiter: Arc<ConcurrencyLimiter>,
    principal: String,
    tenant: Option<Name>,
}

impl ConcurrencyLimiter {
    pub(in crate::api) fn new(max_per_principal: usize, max_per_tenant: usize) -> Arc<Self> {
        Arc::new(Self {
            max_per_principal,
            max_per_tenant,
            in_use: Mutex::default(),
        })
    }

    /// Acquires a permit for the principal and for one of its tenants that is below its limit.
    pub(in crate::api) fn acquire(
        limiter: &Arc<Self>,
        caller: &Principal,
    ) -> Option<ConcurrencyPermit> {
        let mut permit = ConcurrencyPermit {
            limiter: Arc::clone(limiter),
            principal: String::new(),
            tenant: None,
        };
        let Access::Tenants(roles) = &caller.access else {
            return Some(permit);
        };
        let in_use = &mut *limiter
            .in_use
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count_for =
            |map: &HashMap<Name, usize>, name: &Name| map.get(name).copied().unwrap_or(0);
        let has = in_use
            .principals
            .get(&caller.identity)
            .copied()
            .unwrap_or(0);
        if has >= limiter.max_per_principal {
            return None;
        }
        let mut tenants = roles.keys();
        let tenant =
            tenants.find(|name| count_for(&in_use.tenants, name) < limiter.max_per_tenant)?;
        *in_use.tenants.entry(tenant.clone()).or_default() += 1;
        in_use.principals.insert(caller.identity.clone(), has + 1);
        permit.principal.clone_from(&caller.identity);
        permit.tenant = Some(tenant.clone());
        Some(permit)
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let Some(tenant) = &self.tenant else {
            return;
        };
        let in_use = &mut *self
            .limiter
            .in_use
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_use.tenants.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                in_use.tenants.remove(tenant);
            }
        }
        if let Some(count) = in_use.principals.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                in_use.principals.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn caller(name: &str, tenants: &[&str]) -> Principal {
        let roles = tenants.iter().map(|t| (t.parse().unwrap(), Role::Viewer));
        Principal {
            identity: name.to_owned(),
            name: name.to_owned(),
            from: "192.0.2.1".to_owned(),
            access: Access::Tenants(roles.collect()),
        }
    }

    #[test]
    fn permits_are_limited_per_principal_and_tenant() {
        let counts = ConcurrencyLimiter::new(2, 3);
        let one = caller("one", &["a"]);
        let first = ConcurrencyLimiter::acquire(&counts, &one).unwrap();
        let _second = ConcurrencyLimiter::acquire(&counts, &one).unwrap();
        assert!(ConcurrencyLimiter::acquire(&counts, &one).is_none());
        let _third = ConcurrencyLimiter::acquire(&counts, &caller("two", &["a"])).unwrap();
        assert!(ConcurrencyLimiter::acquire(&counts, &caller("three", &["a"])).is_none());
        // The second tenant of the principal is below its limit.
        let _fourth = ConcurrencyLimiter::acquire(&counts, &caller("three", &["a", "b"])).unwrap();
        drop(first);
        let _fifth = ConcurrencyLimiter::acquire(&counts, &one).unwrap();
        assert!(ConcurrencyLimiter::acquire(&counts, &one).is_none());
    }

    #[test]
    fn a_caller_without_roles_gets_no_permit_and_the_operator_is_unlimited() {
        let counts = ConcurrencyLimiter::new(1, 1);
        assert!(ConcurrencyLimiter::acquire(&counts, &caller("nobody", &[])).is_none());
        let operator = Principal::operator("operator", "socket");
        let _places: Vec<ConcurrencyPermit> = (0..10)
            .map(|_| ConcurrencyLimiter::acquire(&counts, &operator).unwrap())
            .collect();
    }

    #[test]
    fn released_permits_leave_no_entries() {
        let counts = ConcurrencyLimiter::new(1, 1);
        drop(ConcurrencyLimiter::acquire(&counts, &caller("one", &["a"])).unwrap());
        let in_use = counts.in_use.lock().unwrap();
        assert!(in_use.principals.is_empty() && in_use.tenants.is_empty());
    }
}
