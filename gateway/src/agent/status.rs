//! Observed state that tasks find out and the controller holds for users.

use std::collections::BTreeMap;

use gateway_common::pipeline::{PRIVILEGED_PORT_COUNT, SOURCE_PORT_COUNT};

use crate::{compile::observed::HealthCheckKey, model::service::HealthState};

/// Share of a SNAT address's ports in use, in percent, from which a warning is given.
const SCARCE_PORTS_PERCENT: u64 = 80;

/// Share of a flow table in use, in percent, from which a warning is given.
const FULL_TABLE_PERCENT: u64 = 80;

/// Usage of a flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTableStatus {
    /// Number of flows that the table is made for.
    pub size: u64,
    /// Number of flows that both sides have confirmed.
    pub established: u64,
}

impl FlowTableStatus {
    /// Returns the established flows in percent of the flows that the table is made for.
    #[must_use]
    pub const fn percent(self) -> u64 {
        match (self.established * 100).checked_div(self.size) {
            Some(percent) => percent,
            None => 0,
        }
    }

    /// Returns true if so much of the table is in use that a warning is given.
    #[must_use]
    pub const fn is_nearly_full(self) -> bool {
        self.percent() >= FULL_TABLE_PERCENT
    }
}

/// Health of the backends that are checked.
pub type HealthByBackend = BTreeMap<HealthCheckKey, HealthState>;

/// Usage of a SNAT address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnatUsage {
    /// Number of flows.
    pub flows: u64,
    /// Number of ports from 1,024 on in use towards the server with the most flows: a port can be used once for each
    /// server.
    pub ports: u64,
    /// Number of lower ports in use towards the server with the most flows from them.
    pub privileged_ports: u64,
}

impl SnatUsage {
    /// Returns true if so many ports are in use that a warning is given.
    #[must_use]
    pub const fn are_ports_scarce(self) -> bool {
        self.ports * 100 >= SOURCE_PORT_COUNT as u64 * SCARCE_PORTS_PERCENT
            || self.privileged_ports * 100 >= PRIVILEGED_PORT_COUNT as u64 * SCARCE_PORTS_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_table_is_nearly_full_from_eighty_percent() {
        let status = |established| FlowTableStatus {
            size: 1_000,
            established,
        };
        assert!(!status(799).is_nearly_full() && status(800).is_nearly_full());
        assert!(!FlowTableStatus::default().is_nearly_full());
    }

    #[test]
    fn snat_ports_are_scarce_from_eighty_percent() {
        let scarce = |ports, privileged_ports| {
            let usage = SnatUsage {
                flows: ports + privileged_ports,
                ports,
                privileged_ports,
            };
            usage.are_ports_scarce()
        };
        assert!(!scarce(0, 0) && !scarce(51_609, 409));
        assert!(scarce(51_610, 0) && scarce(64_512, 0));
        assert!(scarce(0, 410) && scarce(0, 512));
    }
}
