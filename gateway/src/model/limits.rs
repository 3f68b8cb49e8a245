//! Limits of what users can have stored, so that no tenant fills the memory or the time of another. The
//! OpenAPI schemas state those of single fields, and [`crate::model::bounds`] enforces what they state.

use std::collections::BTreeMap;

use crate::model::{
    Change, Kind, Name, Object, Problem, ProblemCode, State, record::Labels, service::ServiceSpec,
};

/// Labels of an object.
pub const MAX_LABELS: usize = 64;
/// Bytes of a label's key.
pub const MAX_LABEL_KEY: usize = 63;
/// Bytes of a label's value.
pub const MAX_LABEL_VALUE: usize = 255;
/// Bytes of all keys and values of an object's labels.
pub const MAX_LABELS_BYTES: usize = 4_096;
/// Bytes of a message or a reason.
pub const MAX_MESSAGE: usize = 1_000;
/// Characters of a caller's name in events and decisions.
pub const MAX_ACTOR: usize = 300;
/// Bytes of a URL.
pub const MAX_URL: usize = 2_000;
/// Bytes of a service as an endpoint's user names it: `TENANT/NAME`, or an alias.
pub const MAX_SERVICE_NAME: usize = 256;
/// Addresses of an endpoint, one of each family.
pub const MAX_ENDPOINT_ADDRESSES: usize = 2;
/// Bytes of an interface's name (`IFNAMSIZ` without its end).
pub const MAX_INTERFACE_NAME: usize = 15;
/// Tenants in each of a service's lists.
pub const MAX_TENANTS: usize = 512;
/// Bytes that a service takes, estimated: see [`service_weight`].
pub const MAX_SERVICE_BYTES: usize = 128 << 10;
/// Bytes that the labels, messages and services of a tenant take together.
pub const MAX_TENANT_BYTES: usize = 16 << 20;

/// Returns roughly how many bytes labels take.
#[must_use]
pub fn labels_size(labels: &Labels) -> usize {
    labels
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// Returns roughly how many bytes of JSON a service's lists take.
#[must_use]
pub fn service_size(spec: &ServiceSpec) -> usize {
    /// Bytes of a port, a backend and an address range as JSON.
    const ENTRY: usize = 48;
    let tenants = [&spec.visibility, &spec.auto_approval, &spec.denied];
    let tenants: usize = tenants.into_iter().map(|set| set.stored_size()).sum();
    let resources = spec.resources.iter().map(|resource| {
        let entries = 1 + resource.ports.len() + resource.backends.len();
        resource.name.as_str().len() + entries * ENTRY
    });
    tenants + resources.sum::<usize>() + spec.nat_addresses.len() * ENTRY
}

/// Returns roughly how many bytes of its owner's choice an object takes. What others write into it, such as
/// a provider's reason in a consumer's endpoint, is left out: nobody uses up another's share.
#[must_use]
pub fn object_size(object: &Object) -> usize {
    let size = match object {
        Object::Service(_, record) => service_size(&record.object.spec),
        Object::Endpoint(_, record) => {
            record.object.request_message.len() + record.object.service.len()
        }
        Object::Identity(_, record) => {
            let claim = &record.object.claim;
            claim.issuer.len() + claim.claim.len() + claim.value.len()
        }
        Object::Webhook(_, record) => record.object.url.len(),
        Object::Tenant(_) | Object::Network(..) | Object::Token(..) => 0,
    };
    size + labels_size(&object.meta().labels)
}

/// Refuses changes after which a tenant takes more room than it may. A tenant that takes too much already,
/// from before there was a limit, can still be changed as long as it does not grow.
///
/// # Errors
/// [`Code::LimitReached`].
pub fn check_tenants(state: &State, changes: &[Change]) -> Result<(), Problem> {
    let mut sizes: BTreeMap<&Name, (usize, usize)> = BTreeMap::new();
    for change in changes {
        let object = change.object();
        // The operator makes tenants and networks.
        if matches!(object.kind(), Kind::Tenant | Kind::Network) {
            continue;
        }
        let old = state.object(object.kind(), &object.reference());
        let (grown, shrunk) = sizes.entry(object.tenant()).or_default();
        *shrunk += old.as_ref().map_or(0, object_size);
        if let Change::Put(object) = change {
            *grown += object_size(object);
        }
    }
    for (tenant, (grown, shrunk)) in sizes {
        let size = (state.tenant_size(tenant) + grown).saturating_sub(shrunk);
        if grown > shrunk && size > MAX_TENANT_BYTES {
            let detail = format!(
                "labels, messages and services of tenant {tenant} would take {size} bytes of at most \
                 {MAX_TENANT_BYTES}: delete or shorten some first"
            );
            return Err(Problem::new(ProblemCode::LimitReached, detail));
        }
    }
    Ok(())
}
