//! Policies of a service for flows: answers to packets without a flow, assignment to backends, and idle timeouts.

use clap::ValueEnum;
use gateway_common::flow::{CoarseTime, FlowTimeouts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::Problem;

/// Answer to a client when no backend can take its flow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum NoBackendAction {
    /// Send a TCP reset, or an ICMP error for UDP.
    #[default]
    Reset,
    /// Drop the packet silently.
    Drop,
}

/// Answer to a packet that matches no flow and can't open one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum UnmatchedPacketAction {
    /// Send a TCP reset, or an ICMP error for UDP.
    #[default]
    Reset,
    /// Drop the packet silently.
    Drop,
}

/// Assignment of a client's flows to backends.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum SessionAffinity {
    /// Balance each flow independently.
    #[default]
    None,
    /// Send all flows of a client address to one backend, as long as the set of backends does not change.
    #[value(alias = "client_address")]
    ClientAddress,
}

/// Idle timeouts of flows, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Timeout of an established TCP connection (RFC 5382, REQ-5).
    pub tcp_established: u32,
    /// Timeout of a TCP connection that is half-open, closing or reset (RFC 5382, REQ-5).
    pub tcp_transitory: u32,
    /// Timeout of a UDP flow (RFC 4787, REQ-5).
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: 7_440,
            tcp_transitory: 240,
            udp: 300,
        }
    }
}

impl Timeouts {
    /// Maximum of each timeout: one week.
    const MAX_SECONDS: u32 = 604_800;
    /// Minimum of each timeout. The data path's clock has a resolution of about one second.
    pub const MIN_SECONDS: u32 = 5;

    /// Returns the timeouts as the data path knows them, in ticks.
    #[must_use]
    pub const fn to_map_timeouts(self) -> FlowTimeouts {
        FlowTimeouts {
            tcp_established: CoarseTime::ticks(self.tcp_established),
            tcp_transitory: CoarseTime::ticks(self.tcp_transitory),
            udp: CoarseTime::ticks(self.udp),
        }
    }

    pub(super) fn check(self) -> Result<(), Problem> {
        for (field, value) in [
            ("timeouts.tcp_established", self.tcp_established),
            ("timeouts.tcp_transitory", self.tcp_transitory),
            ("timeouts.udp", self.udp),
        ] {
            if !(Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&value) {
                return Err(Problem::invalid(
                    field,
                    format!(
                        "{value} seconds is out of range: {} to {}",
                        Self::MIN_SECONDS,
                        Self::MAX_SECONDS
                    ),
                ));
            }
        }
        Ok(())
    }
}
