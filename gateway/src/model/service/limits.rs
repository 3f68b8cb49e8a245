//! Limits of each connection of a service.

use gateway_common::maps;

use crate::model::Problem;

/// Limits of each connection of a service, so that no consumer starves another. The provider sets them. An unset field
/// is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of concurrent flows.
    pub connection_limit: Option<u32>,
    /// Maximum number of new flows a second.
    pub new_connection_rate: Option<u32>,
    /// Maximum number of packets a second, in each direction.
    pub packet_rate: Option<u32>,
    /// Maximum bits a second of IP packets, in each direction.
    pub bit_rate: Option<u64>,
}

/// Minimum bit rate. Below it, not even one full-sized packet would fit in a burst.
const MIN_BIT_RATE: u64 = 1_000_000;
/// Maximum bit rate, one terabit a second. Above it, the cost of a byte has too few significant digits.
const MAX_BIT_RATE: u64 = 1_000_000_000_000;

impl ConnectionLimits {
    /// Checks the ranges of the fields.
    pub(super) fn check(self) -> Result<(), Problem> {
        for (field, value) in [
            ("connection_limit", self.connection_limit),
            ("new_connection_rate", self.new_connection_rate),
            ("packet_rate", self.packet_rate),
        ] {
            if value == Some(0) {
                return Err(Problem::invalid(
                    field,
                    "a limit of 0 lets nothing through: leave it out for no limit, or reject the connection",
                ));
            }
        }
        match self.bit_rate {
            Some(rate) if !(MIN_BIT_RATE..=MAX_BIT_RATE).contains(&rate) => Err(Problem::invalid(
                "bit_rate",
                format!("{rate} is out of range: {MIN_BIT_RATE} to {MAX_BIT_RATE} bits a second"),
            )),
            _ => Ok(()),
        }
    }

    /// Converts the limits to their form in the maps: a rate becomes the time that one unit costs (GCRA).
    #[must_use]
    pub fn to_map_limits(self) -> maps::Limits {
        const SECOND: u64 = 1_000_000_000;
        let price = |rate: Option<u32>| rate.map_or(0, |rate| (SECOND / u64::from(rate)).max(1));
        maps::Limits {
            max_flows: self.connection_limit.map_or(0, u64::from),
            new_flow_cost: price(self.new_connection_rate),
            packet_cost: price(self.packet_rate),
            byte_cost: self
                .bit_rate
                .map_or(0, |rate| ((8 * SECOND) << maps::Limits::BYTE_SHIFT) / rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_costs() {
        let limits = ConnectionLimits {
            connection_limit: Some(7),
            new_connection_rate: Some(100),
            packet_rate: Some(u32::MAX),
            bit_rate: Some(8_000_000),
        };
        let compiled = limits.to_map_limits();
        assert_eq!(
            (compiled.max_flows, compiled.new_flow_cost),
            (7, 10_000_000)
        );
        assert_eq!(compiled.packet_cost, 1, "a cost is never 0");
        assert_eq!(compiled.byte_cost >> maps::Limits::BYTE_SHIFT, 1_000);
        assert_eq!(
            ConnectionLimits::default().to_map_limits(),
            maps::Limits::default()
        );
    }

    #[test]
    fn an_absent_limit_is_unlimited() {
        let none = ConnectionLimits::default();
        let zero = Some(0);
        let bits = |rate| ConnectionLimits {
            bit_rate: Some(rate),
            ..none
        };
        for (limits, field) in [
            (
                ConnectionLimits {
                    connection_limit: zero,
                    ..none
                },
                "connection_limit",
            ),
            (
                ConnectionLimits {
                    new_connection_rate: zero,
                    ..none
                },
                "new_connection_rate",
            ),
            (
                ConnectionLimits {
                    packet_rate: zero,
                    ..none
                },
                "packet_rate",
            ),
            (bits(999_999), "bit_rate"),
            (bits(1_000_000_000_001), "bit_rate"),
        ] {
            let problem = limits.check().unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field));
        }
        assert!(bits(1_000_000_000_000).check().is_ok());
    }
}
