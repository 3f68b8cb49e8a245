//! Sizes of objects, as they count towards the limit of a tenant.

use crate::model::{Object, record::labels_size, service::service_size};

/// Returns the approximate size of the fields of an object that its owner sets, in bytes. Fields that others set, such
/// as a provider's reason in a consumer's endpoint, don't count, so that no tenant uses up the limit of another.
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
