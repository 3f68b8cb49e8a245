//! Counts of what is held by principals and tenants.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::{Access, Name, Principal};

/// Places that principals and tenants hold, with a bound for each. The operator has none.
#[derive(Debug)]
pub(in crate::api) struct Counts {
    most_of_principal: usize,
    most_of_tenant: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    principals: HashMap<String, usize>,
    tenants: HashMap<Name, usize>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(in crate::api) struct Place {
    counts: Arc<Counts>,
    principal: String,
    tenant: Option<Name>,
}

impl Counts {
    pub(in crate::api) fn new(most_of_principal: usize, most_of_tenant: usize) -> Arc<Self> {
        Arc::new(Self {
            most_of_principal,
            most_of_tenant,
            held: Mutex::default(),
        })
    }

    /// Takes a place for the principal and for one of its tenants that has room.
    pub(in crate::api) fn take(counts: &Arc<Self>, caller: &Principal) -> Option<Place> {
        let mut place = Place {
            counts: Arc::clone(counts),
            principal: String::new(),
            tenant: None,
        };
        let Access::Tenants(roles) = &caller.access else {
            return Some(place);
        };
        let held = &mut *counts.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |map: &HashMap<Name, usize>, name: &Name| map.get(name).copied().unwrap_or(0);
        let has = held.principals.get(&caller.identity).copied().unwrap_or(0);
        if has >= counts.most_of_principal {
            return None;
        }
        let mut tenants = roles.keys();
        let tenant = tenants.find(|name| of(&held.tenants, name) < counts.most_of_tenant)?;
        *held.tenants.entry(tenant.clone()).or_default() += 1;
        held.principals.insert(caller.identity.clone(), has + 1);
        place.principal.clone_from(&caller.identity);
        place.tenant = Some(tenant.clone());
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(tenant) = &self.tenant else {
            return;
        };
        let held = &mut *self
            .counts
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.tenants.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                held.tenants.remove(tenant);
            }
        }
        if let Some(count) = held.principals.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                held.principals.remove(&self.principal);
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
    fn a_principal_and_a_tenant_have_so_many_places() {
        let counts = Counts::new(2, 3);
        let one = caller("one", &["a"]);
        let first = Counts::take(&counts, &one).unwrap();
        let _second = Counts::take(&counts, &one).unwrap();
        assert!(Counts::take(&counts, &one).is_none());
        let _third = Counts::take(&counts, &caller("two", &["a"])).unwrap();
        assert!(Counts::take(&counts, &caller("three", &["a"])).is_none());
        // A second tenant of its own has room for it.
        let _fourth = Counts::take(&counts, &caller("three", &["a", "b"])).unwrap();
        drop(first);
        let _fifth = Counts::take(&counts, &one).unwrap();
        assert!(Counts::take(&counts, &one).is_none());
    }

    #[test]
    fn without_a_role_there_is_no_place_and_the_operator_needs_none() {
        let counts = Counts::new(1, 1);
        assert!(Counts::take(&counts, &caller("nobody", &[])).is_none());
        let operator = Principal::operator("operator", "socket");
        let _places: Vec<Place> = (0..10)
            .map(|_| Counts::take(&counts, &operator).unwrap())
            .collect();
    }

    #[test]
    fn what_is_given_back_leaves_nothing_behind() {
        let counts = Counts::new(1, 1);
        drop(Counts::take(&counts, &caller("one", &["a"])).unwrap());
        let held = counts.held.lock().unwrap();
        assert!(held.principals.is_empty() && held.tenants.is_empty());
    }
}
