//! Resources of services, to which endpoints are bound.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    Name, Problem,
    address::check_host,
    service::{Backend, MAX_BACKENDS, MAX_PORTS, MAX_WEIGHT, Port, PortNumber},
    strict,
};

/// Named instance inside a service. An endpoint is bound to exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Name within the service.
    #[serde(default = "default_resource")]
    pub name: Name,
    /// Ports that clients can connect to.
    #[serde(deserialize_with = "strict::objects")]
    #[schema(max_items = 1024)]
    pub ports: Vec<Port>,
    /// Servers of the resource.
    #[serde(default, deserialize_with = "strict::objects")]
    #[schema(max_items = 256)]
    pub backends: Vec<Backend>,
}

/// Returns the name of a resource whose request has none.
///
/// # Panics
/// Does not panic: the literal is a valid name.
#[must_use]
pub fn default_resource() -> Name {
    #[expect(clippy::expect_used, reason = "a literal")]
    "default".parse().expect("a name")
}

impl Resource {
    pub(super) fn check(&self, field: &str) -> Result<(), Problem> {
        if self.ports.is_empty() || self.ports.len() > MAX_PORTS {
            return Err(Problem::invalid(
                format!("{field}.ports"),
                format!("a resource offers 1 to {MAX_PORTS} ports"),
            ));
        }
        let mut ports = HashSet::new();
        for (index, port) in self.ports.iter().enumerate() {
            let field = format!("{field}.ports[{index}]");
            if !ports.insert((port.protocol, port.port)) {
                return Err(Problem::invalid(
                    field,
                    format!("port {}/{} is offered twice", port.port, port.protocol),
                ));
            }
            match (port.port, port.backend_port) {
                (_, Some(0)) => {
                    return Err(Problem::invalid(
                        format!("{field}.backend_port"),
                        "port 0 can't be connected to",
                    ));
                }
                (PortNumber::Every, Some(_)) => {
                    return Err(Problem::invalid(
                        format!("{field}.backend_port"),
                        "every port (*) is kept as it is: leave backend_port out",
                    ));
                }
                _ => {}
            }
        }
        if self.backends.len() > MAX_BACKENDS {
            return Err(Problem::invalid(
                format!("{field}.backends"),
                format!("a resource has at most {MAX_BACKENDS} backends"),
            ));
        }
        let mut addresses = HashSet::new();
        for (index, backend) in self.backends.iter().enumerate() {
            let field = format!("{field}.backends[{index}]");
            check_host(&format!("{field}.address"), backend.address)?;
            let first = &self.backends[0].address;
            if backend.address.is_ipv4() != first.is_ipv4() {
                return Err(Problem::invalid(
                    format!("{field}.address"),
                    format!(
                        "{} and {first} are of different families: a resource's backends are all \
                         IPv4 or all IPv6",
                        backend.address
                    ),
                ));
            }
            if backend.weight > MAX_WEIGHT {
                return Err(Problem::invalid(
                    format!("{field}.weight"),
                    format!("a weight is at most {MAX_WEIGHT}"),
                ));
            }
            if backend.drain_deadline.is_some() && !backend.drain {
                return Err(Problem::invalid(
                    format!("{field}.drain_deadline"),
                    "drain_deadline has no effect on a backend that is not draining: set drain",
                ));
            }
            if !addresses.insert(backend.address) {
                return Err(Problem::invalid(
                    format!("{field}.address"),
                    format!("backend {} is named twice", backend.address),
                ));
            }
        }
        Ok(())
    }
}
