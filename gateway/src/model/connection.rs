//! The relation of an endpoint to its service, and the only ways its state can change.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Problem, ProblemCode};

/// Where a connection stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub enum ConnectionState {
    /// The consumer has asked; nothing flows.
    Pending,
    /// The provider has agreed; traffic flows.
    Approved,
    /// The provider has refused, or withdrawn what it had agreed to.
    Rejected,
    /// The provider has removed the connection or its service. The end: the consumer can only
    /// delete the endpoint.
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

/// What a provider can do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Let it flow.
    Approve,
    /// Refuse it, or cut it off.
    Reject,
    /// End it for good.
    Remove,
}

impl Decision {
    /// All of them.
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
    /// The state after a decision.
    ///
    /// # Errors
    /// [`Code::WrongState`] for every move that is not defined.
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
                            ": Disconnected is final, the consumer can only delete its endpoint",
                        _ => "",
                    }
                ),
            )),
        }
    }
}

/// Who decides about the requests of tenants that are approved at once.
pub const AUTO_APPROVAL: &str = "auto-approval";

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its number.
    pub link_id: u32,
    /// Its place in the data path's arrays.
    pub slot: u32,
    /// Where it stands.
    pub state: ConnectionState,
    /// Which approval it stands under: another number for each, 0 for none. Flows carry it, so
    /// those of an approval that has ended are dead at once.
    pub generation: u32,
    /// What was said with the last decision.
    #[serde(default)]
    pub reason: String,
    /// Who took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
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
