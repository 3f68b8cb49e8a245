//! Restoring of backups.

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// Options of restoring a backup.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RestoreParameters {
    /// Report the differences and change nothing.
    #[serde(default)]
    #[param(default = false)]
    pub dry_run: bool,
    /// Accept the backup of another gateway.
    #[serde(default)]
    #[param(default = false)]
    pub foreign: bool,
}
