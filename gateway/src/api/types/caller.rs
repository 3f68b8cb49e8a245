//! The authenticated caller.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Name, Role};

/// The authenticated caller.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CallerView {
    /// Stable and unique identity.
    pub identity: String,
    /// Name in events and in the history of objects.
    pub name: String,
    /// IP address of the caller, or `socket`.
    pub from: String,
    /// True for the operator.
    pub operator: bool,
    /// Role in each tenant.
    pub roles: BTreeMap<Name, Role>,
}
