//! Authorization: random sequences of calls against the table of roles, and manifests of single callers.

mod calls;
mod manifests;
mod oracle;
mod sequences;

use super::*;
use crate::model::{
    Access, Decision, HostAddresses, HostUses, OpContext, Reference, Role,
    endpoint::{EndpointRequest, ReconnectRequest},
    manifest::{ConnectionEntry, Manifest, ManifestEntry},
    operations::{
        ApplyOptions, Policy, apply, create_endpoint, create_service, decide, delete_endpoint,
        delete_service, reconnect_endpoint,
        tests::{Counted, World},
        update_endpoint, update_service,
    },
    record::Labels,
    service::{ServiceRequest, TenantSet},
};

use calls::{Call, ENDPOINTS, Run, SERVICES, Step, TENANTS, name, reference, world};
use oracle::check_permissions;
