//! Connections between endpoints and services, and the state machine of their approval.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Problem, ProblemCode};

/// State of a connection.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub enum ConnectionState {
    /// Waiting for the provider's approval. The connection carries no traffic.
    Pending,
    /// Approved by the provider. The connection carries traffic.
    Approved,
    /// Rejected by the provider, which may have approved the connection before.
    Rejected,
    /// Removed by the provider, alone or with the service. The state is final: the consumer can delete the endpoint, or
    /// ask for a new connection.
    Disconnected,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "Pending",
            Self::Approved => "Approved",
            Self::Rejected => "Rejected",
            Self::Disconnected => "Disconnected",
        })
    }
}

impl FromStr for ConnectionState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let states = [
            Self::Pending,
            Self::Approved,
            Self::Rejected,
            Self::Disconnected,
        ];
        let mut states = states.into_iter();
        states
            .find(|state| state.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| "a connection is Pending, Approved, Rejected or Disconnected".to_owned())
    }
}

/// Decision of a provider about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Let the connection carry traffic.
    Approve,
    /// Refuse the connection, or revoke its approval.
    Reject,
    /// Disconnect the connection permanently.
    Remove,
}

impl Decision {
    /// All decisions.
    pub const ALL: [Self; 3] = [Self::Approve, Self::Reject, Self::Remove];

    const fn past_participle(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Reject => "rejected",
            Self::Remove => "removed",
        }
    }
}

impl ConnectionState {
    /// Returns the state after a decision.
    ///
    /// # Errors
    /// Fails with [`ProblemCode::WrongState`] for a transition that is not defined.
    pub fn apply_decision(self, decision: Decision) -> Result<Self, Problem> {
        match (self, decision) {
            (Self::Pending | Self::Rejected, Decision::Approve) => Ok(Self::Approved),
            (Self::Pending | Self::Approved, Decision::Reject) => Ok(Self::Rejected),
            (Self::Pending | Self::Approved | Self::Rejected, Decision::Remove) => {
                Ok(Self::Disconnected)
            }
            _ => Err(Problem::new(
                ProblemCode::WrongState,
                format!(
                    "a connection that is {self} can't be {}{}",
                    decision.past_participle(),
                    match self {
                        Self::Disconnected =>
                            ": Disconnected is final, but the consumer can ask again (plgw endpoint reconnect)",
                        _ => "",
                    }
                ),
            )),
        }
    }
}

/// Name in `decided_by` of connections that were approved automatically.
pub const AUTO_APPROVAL: &str = "auto-approval";

/// Stored connection, a part of its endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Number of the connection in the API.
    pub link_id: u32,
    /// Index of the connection in the data path's arrays.
    pub slot: u32,
    /// State of the approval.
    pub state: ConnectionState,
    /// Number of the approval, another one each time; 0 if the connection is not approved. Flows carry it, so that
    /// revocation ends them at once.
    pub generation: u32,
    /// Reason that the provider gave for the last decision.
    #[serde(default)]
    pub reason: String,
    /// Name of the caller that took the last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// Time of the last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// Time of the request. Unset: the connection was requested when the endpoint was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use ConnectionState::*;
    use Decision::*;

    use super::*;

    #[test]
    fn only_the_listed_transitions_are_allowed() {
        let allowed = [
            (Pending, Approve, Approved),
            (Pending, Reject, Rejected),
            (Approved, Reject, Rejected),
            (Rejected, Approve, Approved),
            (Pending, Remove, Disconnected),
            (Approved, Remove, Disconnected),
            (Rejected, Remove, Disconnected),
        ];
        for from in [Pending, Approved, Rejected, Disconnected] {
            for decision in Decision::ALL {
                let expected = allowed
                    .iter()
                    .find(|(state, by, _)| (*state, *by) == (from, decision))
                    .map(|(_, _, to)| *to);
                match (from.apply_decision(decision), expected) {
                    (Ok(to), Some(expected)) => assert_eq!(to, expected),
                    (Err(problem), None) => {
                        assert_eq!(problem.code, ProblemCode::WrongState);
                        assert!(problem.detail.contains(&from.to_string()), "{problem}");
                    }
                    (given, expected) => panic!("{from} {decision:?}: {given:?}, {expected:?}"),
                }
            }
        }
    }
}
