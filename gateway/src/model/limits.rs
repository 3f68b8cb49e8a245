//! Limits of the sizes of stored objects, so that no tenant exhausts memory or processing time of others. The OpenAPI
//! schemas state the limits of single fields, and [`crate::model::bounds`] enforces them.

/// Maximum number of labels of an object.
pub const MAX_LABELS: usize = 64;
/// Maximum length of a label's key, in bytes.
pub const MAX_LABEL_KEY: usize = 63;
/// Maximum length of a label's value, in bytes.
pub const MAX_LABEL_VALUE: usize = 255;
/// Maximum length of all label keys and values of an object together, in bytes.
pub const MAX_LABELS_BYTES: usize = 4_096;
/// Maximum length of a message or a reason, in bytes.
pub const MAX_MESSAGE: usize = 1_000;
/// Maximum length of a caller's name in events and decisions, in characters.
pub const MAX_ACTOR: usize = 300;
/// Maximum length of a URL, in bytes.
pub const MAX_URL: usize = 2_000;
/// Maximum length of the service in an endpoint request (`TENANT/NAME` or an alias), in bytes.
pub const MAX_SERVICE_NAME: usize = 256;
/// Maximum number of addresses of an endpoint, one of each family.
pub const MAX_ENDPOINT_ADDRESSES: usize = 2;
/// Maximum length of an interface's name, in bytes (`IFNAMSIZ` without the terminating NUL).
pub const MAX_INTERFACE_NAME: usize = 15;
/// Maximum number of tenants in each list of a service.
pub const MAX_TENANTS: usize = 512;
/// Maximum size of a service in bytes, as [`service_size`](crate::model::service::service_size) estimates it.
pub const MAX_SERVICE_BYTES: usize = 128 << 10;
/// Maximum size of all objects of a tenant together in bytes, as
/// [`object_size`](crate::model::object_size::object_size) estimates it.
pub const MAX_TENANT_BYTES: usize = 16 << 20;
