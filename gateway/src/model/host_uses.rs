//! Uses that the gateway's host makes of its interfaces, which a network's attachment may cut off.

use std::collections::BTreeMap;

/// Uses of interfaces by the host itself: what the host would lose if it received nothing through an interface. By the
/// interface's name, the most important use first, each worded to follow "the host would lose".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostUses(BTreeMap<String, Vec<String>>);

impl FromIterator<(String, Vec<String>)> for HostUses {
    fn from_iter<I: IntoIterator<Item = (String, Vec<String>)>>(uses: I) -> Self {
        Self(uses.into_iter().collect())
    }
}

impl HostUses {
    /// Returns the uses of an interface.
    #[must_use]
    pub fn of_interface(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}
