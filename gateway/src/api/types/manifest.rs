//! Applying of manifests.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::model::operations::ObjectDiff;

/// Options of applying a manifest.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ApplyParameters {
    /// Report the differences and change nothing.
    #[serde(default)]
    #[param(default = false)]
    pub dry_run: bool,
    /// Delete objects that the manifest does not name, in tenants in which the caller has a role. Tokens,
    /// webhooks and Disconnected connections are kept.
    #[serde(default)]
    #[param(default = false)]
    pub prune: bool,
    /// Delete services even if connections to them are approved, and attach interfaces that the gateway's host uses
    /// itself.
    #[serde(default)]
    #[param(default = false)]
    pub force: bool,
    /// Replace endpoints of which another field than the labels changes: each requests a connection again, which needs
    /// a new approval.
    #[serde(default)]
    #[param(default = false)]
    pub replace: bool,
}

/// The outcome of applying a manifest.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// Objects that were changed, or with `dry_run` would be.
    pub differences: Vec<ObjectDiff>,
}
