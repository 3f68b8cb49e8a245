//! Health checks of backends: what is asked, and what the answers mean. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Problem, schema, text};

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheckKind {
    /// Nothing: who answers ARP is well.
    #[default]
    None,
    /// To accept a TCP connection.
    Tcp,
    /// To answer an HTTP request.
    Http,
    /// To answer one over TLS; the certificate is not judged, since the backend is asked by address.
    Https,
}

/// What happens to the flows of a backend that fails its checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnhealthyFlowAction {
    /// They go on: the server may be slow, and not dead.
    #[default]
    Keep,
    /// Both ends are sent a reset.
    Reset,
}

/// Status codes of HTTP: a range, both ends in it. As text `200`, or `200-399`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Whether the code is in it.
    #[must_use]
    pub const fn contains(self, code: u16) -> bool {
        self.first <= code && code <= self.last
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let code = |text: &str| text.parse::<u16>().ok().filter(|c| (100..=599).contains(c));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "{text:?} is no range of HTTP status codes: write 200, or 200-399"
            )),
        }
    }
}

impl TryFrom<String> for StatusRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl From<StatusRange> for String {
    fn from(range: StatusRange) -> Self {
        range.to_string()
    }
}

/// How a service's backends are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// What is asked.
    pub check: HealthCheckKind,
    /// The backends' port; unset: that of the resource's first TCP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Seconds between two checks.
    pub interval: u32,
    /// Seconds within which the answer must come.
    pub timeout: u32,
    /// So many checks in a row that succeed make a backend healthy.
    pub healthy_threshold: u32,
    /// So many that fail make it unhealthy.
    pub unhealthy_threshold: u32,
    /// What is asked for by HTTP.
    #[schema(max_length = 1024)]
    pub path: String,
    /// What the answer must be.
    pub expected_status: StatusRange,
    /// What happens to an unhealthy backend's flows.
    pub unhealthy_flow_action: UnhealthyFlowAction,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            check: HealthCheckKind::None,
            port: None,
            interval: 5,
            timeout: 2,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            path: "/".to_owned(),
            expected_status: StatusRange {
                first: 200,
                last: 399,
            },
            unhealthy_flow_action: UnhealthyFlowAction::Keep,
        }
    }
}

impl HealthCheck {
    /// Whether these are the defaults, which need not be shown.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the fields.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let problem =
            |field: &str, text: String| Problem::invalid(format!("health_check.{field}"), text);
        for (field, value, max) in [
            ("interval", self.interval, 3_600),
            ("timeout", self.timeout, 60),
            ("healthy_threshold", self.healthy_threshold, 100),
            ("unhealthy_threshold", self.unhealthy_threshold, 100),
        ] {
            if !(1..=max).contains(&value) {
                let text = format!("{value} is out of range: 1 to {max}");
                return Err(problem(field, text));
            }
        }
        if self.port == Some(0) {
            return Err(problem("port", "port 0 can't be connected to".to_owned()));
        }
        let is_valid = self.path.starts_with('/')
            && self.path.len() <= 1_024
            && self.path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_valid {
            return Err(problem(
                "path",
                format!(
                    "{:?} is no path of a URL: it begins with /, has no spaces and at most 1024 bytes",
                    text::truncated(&self.path, 80)
                ),
            ));
        }
        Ok(())
    }
}

/// How a backend did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthState {
    /// It failed its checks.
    pub unhealthy: bool,
    /// Checks in a row that contradict that.
    streak: u32,
    /// What the last failed check said.
    pub last_error: Option<String>,
}

impl HealthState {
    /// Takes a check's outcome in; says whether the backend is another now. One that was never
    /// checked is healthy until it has failed often enough.
    pub fn observe(&mut self, check: &HealthCheck, outcome: Result<(), String>) -> bool {
        let failed = outcome.is_err();
        if let Err(error) = outcome {
            self.last_error = Some(error);
        }
        if failed == self.unhealthy {
            self.streak = 0;
            return false;
        }
        self.streak += 1;
        let threshold = if failed {
            check.unhealthy_threshold
        } else {
            check.healthy_threshold
        };
        if self.streak < threshold {
            return false;
        }
        self.unhealthy = failed;
        self.streak = 0;
        if !failed {
            self.last_error = None;
        }
        true
    }
}

schema::schemas! {
    StatusRange, "StatusRange",
        schema::text("HTTP status codes: `200` or `200-399`")
            .pattern(Some("^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_checks_in_a_row() {
        let check = HealthCheck {
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            ..HealthCheck::default()
        };
        let mut health = HealthState::default();
        let failed = || Err("refused".to_owned());
        let outcomes = [
            (failed(), false),
            (failed(), false),
            (Ok(()), false),
            (failed(), false),
            (failed(), false),
            (failed(), true),
            (Ok(()), false),
            (failed(), false),
            (Ok(()), false),
            (Ok(()), true),
        ];
        for (index, (outcome, changes)) in outcomes.into_iter().enumerate() {
            assert_eq!(health.observe(&check, outcome), changes, "{index}");
        }
        assert_eq!(health, HealthState::default());
    }

    #[test]
    fn status_ranges() {
        let range: StatusRange = "200-399".parse().unwrap();
        assert!(range.contains(200) && range.contains(399) && !range.contains(400));
        assert_eq!("204".parse::<StatusRange>().unwrap().to_string(), "204");
        for bad in ["", "99", "600", "300-200", "200-", "2xx"] {
            assert!(bad.parse::<StatusRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_are_validated() {
        let check = |json| serde_json::from_str::<HealthCheck>(json).unwrap().check();
        assert!(check("{}").is_ok());
        for (json, field) in [
            (r#"{"interval": 0}"#, "health_check.interval"),
            (r#"{"timeout": 61}"#, "health_check.timeout"),
            (
                r#"{"healthy_threshold": 0}"#,
                "health_check.healthy_threshold",
            ),
            (r#"{"port": 0}"#, "health_check.port"),
            (r#"{"path": "health"}"#, "health_check.path"),
            (r#"{"path": "/a b"}"#, "health_check.path"),
        ] {
            assert_eq!(check(json).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
