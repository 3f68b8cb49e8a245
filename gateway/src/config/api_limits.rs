//! Limits of callers of the API.

use super::Settings;

/// Limits of callers of the API. The operator is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Changes a second of each principal; 0 means no limit.
    pub changes_per_second: u32,
    /// Other requests a second of each principal; 0 means no limit.
    pub reads_per_second: u32,
    /// Changes a second of all principals of a tenant together; 0 means no limit.
    pub tenant_changes_per_second: u32,
    /// Other requests a second of all principals of a tenant together; 0 means no limit.
    pub tenant_reads_per_second: u32,
    /// Requests a second without a valid credential from one source; 0 means no limit.
    pub unauthenticated_per_second: u32,
    /// Open event streams of each principal.
    pub streams_per_principal: usize,
    /// Open event streams of all principals of a tenant together.
    pub streams_per_tenant: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            changes_per_second: 50,
            reads_per_second: 200,
            tenant_changes_per_second: 100,
            tenant_reads_per_second: 400,
            unauthenticated_per_second: 20,
            streams_per_principal: 8,
            streams_per_tenant: 32,
        }
    }
}

impl ApiLimits {
    pub(super) fn from_settings(settings: &Settings) -> Self {
        let defaults = Self::default();
        let rate = |given: Option<u32>, default| given.unwrap_or(default);
        let count = |given: Option<usize>, default| given.unwrap_or(default);
        Self {
            changes_per_second: rate(settings.changes_per_second, defaults.changes_per_second),
            reads_per_second: rate(settings.reads_per_second, defaults.reads_per_second),
            tenant_changes_per_second: rate(
                settings.tenant_changes_per_second,
                defaults.tenant_changes_per_second,
            ),
            tenant_reads_per_second: rate(
                settings.tenant_reads_per_second,
                defaults.tenant_reads_per_second,
            ),
            unauthenticated_per_second: rate(
                settings.unauthenticated_per_second,
                defaults.unauthenticated_per_second,
            ),
            streams_per_principal: count(
                settings.streams_per_principal,
                defaults.streams_per_principal,
            ),
            streams_per_tenant: count(settings.streams_per_tenant, defaults.streams_per_tenant),
        }
    }
}
