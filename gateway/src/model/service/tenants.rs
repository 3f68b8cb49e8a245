//! Sets of tenants.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use utoipa::openapi::ArrayBuilder;

use crate::model::{
    Name, limits,
    schema::{self, NAME_PATTERN},
};

/// Set of tenants: a list of names, or `["*"]` for every tenant. Names are kept sorted, since every request of a
/// consumer looks its tenant up in the sets of services that other tenants fill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub enum TenantSet {
    /// No tenant.
    #[default]
    None,
    /// Tenants with these names.
    Some(BTreeSet<Name>),
    /// Every tenant.
    Every,
}

impl TenantSet {
    /// Returns true if the set contains the tenant.
    #[must_use]
    pub fn contains(&self, tenant: &Name) -> bool {
        match self {
            Self::None => false,
            Self::Some(names) => names.contains(tenant),
            Self::Every => true,
        }
    }
}

impl TenantSet {
    /// Returns the number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None | Self::Every => 0,
            Self::Some(names) => names.len(),
        }
    }

    /// Returns true if the set has no names, which includes the set of every tenant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the approximate number of bytes of JSON that the names take.
    #[must_use]
    pub fn stored_size(&self) -> usize {
        match self {
            Self::None | Self::Every => 0,
            Self::Some(names) => names.iter().map(|name| name.as_str().len() + 3).sum(),
        }
    }
}

impl TryFrom<Vec<String>> for TenantSet {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        match list.as_slice() {
            [] => Ok(Self::None),
            [star] if star == "*" => Ok(Self::Every),
            _ if list.iter().any(|name| name == "*") => {
                Err("\"*\" stands for every tenant and must be alone in the list".to_owned())
            }
            _ => {
                let names: Result<BTreeSet<Name>, _> =
                    list.iter().map(|name| name.parse()).collect();
                names.map(Self::Some).map_err(|error| error.to_string())
            }
        }
    }
}

impl From<TenantSet> for Vec<String> {
    fn from(set: TenantSet) -> Self {
        match set {
            TenantSet::None => Self::new(),
            TenantSet::Some(names) => names.into_iter().map(String::from).collect(),
            TenantSet::Every => vec!["*".to_owned()],
        }
    }
}

impl fmt::Display for TenantSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&Vec::from(self.clone()).join(","))
    }
}

schema::schemas! {
    TenantSet, "TenantSet",
        ArrayBuilder::new()
            .items(schema::text("name of a tenant, or `*` alone for all tenants")
                .pattern(Some(format!("^(\\*|{NAME_PATTERN})$"))))
            .max_items(Some(limits::MAX_TENANTS))
            .description(Some("Tenants by name, or all tenants"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_sets() {
        let set = |json: &str| serde_json::from_str::<TenantSet>(json);
        assert_eq!(set("[]").unwrap(), TenantSet::None);
        assert_eq!(set("[\"*\"]").unwrap(), TenantSet::Every);
        assert!(set("[\"a\"]").unwrap().contains(&"a".parse().unwrap()));
        assert!(set("[\"*\",\"a\"]").is_err() && set("[\"A\"]").is_err());
    }
}
