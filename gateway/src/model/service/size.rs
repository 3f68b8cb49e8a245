//! Size of a service, which bounds its lists.

use crate::model::service::ServiceSpec;

/// Returns the approximate size of a service's lists as JSON, in bytes.
#[must_use]
pub fn service_size(spec: &ServiceSpec) -> usize {
    /// Approximate size of a port, a backend or an address range as JSON.
    const ENTRY: usize = 48;
    let tenants = [&spec.visibility, &spec.auto_approval, &spec.denied];
    let tenants: usize = tenants.into_iter().map(|set| set.stored_size()).sum();
    let resources = spec.resources.iter().map(|resource| {
        let entries = 1 + resource.ports.len() + resource.backends.len();
        resource.name.as_str().len() + entries * ENTRY
    });
    tenants + resources.sum::<usize>() + spec.nat_addresses.len() * ENTRY
}
