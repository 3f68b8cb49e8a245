//! Observed state that tasks find out and the controller holds for users.

use std::collections::BTreeMap;

use gateway_common::pipeline::SOURCE_PORT_COUNT;

use crate::{compile::observed::HealthCheckKey, model::service::HealthState};

/// Share of a SNAT address's ports in use, in percent, from which a warning is given.
const SCARCE_PORTS_PERCENT: u64 = 80;

/// Health of the backends that are checked.
pub type HealthByBackend = BTreeMap<HealthCheckKey, HealthState>;

/// Usage of a SNAT address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnatUsage {
    /// Number of flows.
    pub flows: u64,
    /// Number of ports in use towards the server with the most flows: a port can be used once for each server.
    pub ports: u64,
}

impl SnatUsage {
    /// Returns true if so many ports are in use that a warning is given.
    #[must_use]
    pub const fn are_ports_scarce(self) -> bool {
        self.ports * 100 >= SOURCE_PORT_COUNT as u64 * SCARCE_PORTS_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snat_ports_are_scarce_from_eighty_percent() {
        let scarce = |ports| {
            let usage = SnatUsage {
                flows: ports,
                ports,
            };
            usage.are_ports_scarce()
        };
        assert!(!scarce(0) && !scarce(51_609));
        assert!(scarce(51_610) && scarce(64_512));
    }
}
