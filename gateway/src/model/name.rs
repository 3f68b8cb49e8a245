//! Names of objects, and references by tenant and name.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::model::schema::{self, NAME_PATTERN};

/// Name of an object: 1 to 63 of the characters `a-z`, `0-9` and `-`, starting with a letter. Clones are cheap: short
/// names are stored inline, and long ones are shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(SmolStr);

/// Error for a text that is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a name: use 1 to 63 of the characters a-z, 0-9 and -, starting with a letter"
)]
pub struct InvalidName {
    given: String,
}

impl Name {
    /// Returns the lowest name.
    pub(crate) fn min() -> Self {
        Self(SmolStr::new_static("a"))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    /// Parses a name.
    ///
    /// # Examples
    /// ```
    /// use gateway::model::Name;
    ///
    /// assert!("db-1".parse::<Name>().is_ok());
    /// assert!("1-db".parse::<Name>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = text.len() <= 63
            && text
                .bytes()
                .next()
                .is_some_and(|first| first.is_ascii_lowercase())
            && text.bytes().all(allowed);
        if valid {
            Ok(Self(SmolStr::new(text)))
        } else {
            Err(InvalidName {
                given: text.chars().take(80).collect(),
            })
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Reference to an object of a tenant, written `TENANT/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Tenant that owns the object.
    pub tenant: Name,
    /// Name of the object within the tenant.
    pub name: Name,
}

/// Error for a text that is not a [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// The text does not have exactly one slash.
    #[error("{0:?} is not a reference: write TENANT/NAME")]
    Form(String),
    /// The tenant or the name is not a [`Name`].
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl Reference {
    /// Creates a reference.
    #[must_use]
    pub const fn new(tenant: Name, name: Name) -> Self {
        Self { tenant, name }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    /// Parses a reference of the form `TENANT/NAME`.
    ///
    /// # Examples
    /// ```
    /// use gateway::model::Reference;
    ///
    /// let reference: Reference = "shop/db".parse()?;
    /// assert_eq!(reference.tenant.as_str(), "shop");
    /// assert_eq!(reference.name.as_str(), "db");
    /// # Ok::<(), gateway::model::name::InvalidReference>(())
    /// ```
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        match text.split_once('/') {
            Some((tenant, name)) if !name.contains('/') => Ok(Self {
                tenant: tenant.parse()?,
                name: name.parse()?,
            }),
            _ => Err(InvalidReference::Form(text.chars().take(130).collect())),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.tenant, self.name))
    }
}

schema::schemas! {
    Name, "Name",
        schema::text("1 to 63 of `a-z 0-9 -`, starting with a letter").pattern(Some(format!("^{NAME_PATTERN}$")));
    Reference, "Reference",
        schema::text("`TENANT/NAME`").pattern(Some(format!("^{NAME_PATTERN}/{NAME_PATTERN}$")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "shop", "db-1", "a--", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "1a",
            "-a",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "ä",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn references() {
        let reference: Reference = "shop/db".parse().unwrap();
        assert_eq!(
            (reference.tenant.as_str(), reference.name.as_str()),
            ("shop", "db")
        );
        assert_eq!(reference.to_string(), "shop/db");
        for bad in ["shop", "shop/", "/db", "a/b/c", ""] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
