//! Health checks of backends: settings, and the state that follows from results. Performs no I/O.

use std::{fmt, str::FromStr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    Problem, schema,
    service::{Payload, PortNumber, Protocol, Resource},
    text,
};

/// Kind of a health check.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheckKind {
    /// No check. A backend counts as healthy if its MAC address is resolved.
    #[default]
    None,
    /// The backend must accept a TCP connection.
    Tcp,
    /// The backend must answer an HTTP request.
    Http,
    /// The backend must answer an HTTP request over TLS. The certificate is not verified, since the backend is
    /// addressed by IP address.
    Https,
    /// The backend must answer a datagram with one that begins as expected. Without an expected answer, it only must
    /// not refuse the datagram by an ICMP error.
    Udp,
}

impl HealthCheckKind {
    /// Returns the protocol of the probes, or `None` if there are none.
    #[must_use]
    pub const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::None => None,
            Self::Tcp | Self::Http | Self::Https => Some(Protocol::Tcp),
            Self::Udp => Some(Protocol::Udp),
        }
    }
}

/// Treatment of a resource that has no healthy backend.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum NoHealthyBackend {
    /// Select none: new flows are answered as `no_backend_action` says.
    #[default]
    Reset,
    /// Select among all reachable backends as if they were healthy: the check may be wrong (fail open).
    #[value(alias = "use_all")]
    UseAll,
}

/// Treatment of the flows of an unhealthy backend. For UDP flows, a backend that is draining or unreachable is treated
/// alike.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum UnhealthyFlowAction {
    /// Keep TCP connections, since the server may only be slow. The next datagram of a UDP flow is sent to another
    /// backend, if one can take it.
    #[default]
    Reselect,
    /// Keep all flows.
    Keep,
    /// End the flows. Both ends of a TCP connection get a reset.
    Reset,
}

/// Inclusive range of HTTP status codes, written `200` or `200-399`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Returns true if the range contains the code.
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
                "{text:?} is not a range of HTTP status codes: write 200 or 200-399"
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

/// Health check of a service's backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// Kind of the check.
    pub check: HealthCheckKind,
    /// Port of the backends. Unset: the backend port of the resource's first port of the check's protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Seconds between two checks.
    pub interval: u32,
    /// Seconds after which a check without an answer fails.
    pub timeout: u32,
    /// Number of consecutive successful checks that make a backend healthy.
    pub healthy_threshold: u32,
    /// Number of consecutive failed checks that make a backend unhealthy.
    pub unhealthy_threshold: u32,
    /// Path of the HTTP request.
    #[schema(max_length = 1024)]
    pub path: String,
    /// Status codes that a healthy backend answers with.
    pub expected_status: StatusRange,
    /// Payload of the datagram that a UDP check sends.
    #[serde(skip_serializing_if = "Payload::is_empty")]
    pub send: Payload,
    /// Beginning of the datagram that a healthy backend answers a UDP check with. Unset: no answer is expected, and a
    /// backend is healthy unless an ICMP error refuses the datagram before the timeout.
    #[serde(skip_serializing_if = "Payload::is_empty")]
    pub expect: Payload,
    /// Treatment of an unhealthy backend's flows.
    pub unhealthy_flow_action: UnhealthyFlowAction,
    /// Treatment of a resource that has no healthy backend.
    #[serde(skip_serializing_if = "is_default")]
    pub no_healthy_backend: NoHealthyBackend,
}

/// Returns true if a value is the default of its type, so that it is left out of JSON.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
            send: Payload::default(),
            expect: Payload::default(),
            unhealthy_flow_action: UnhealthyFlowAction::Reselect,
            no_healthy_backend: NoHealthyBackend::Reset,
        }
    }
}

impl HealthCheck {
    /// Returns true if all fields have their defaults, so that the check is left out of JSON.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the port of a resource's backends that is probed: the configured one, or the backend port of the
    /// resource's first port of the check's protocol. `None` if there is no check, or no such port.
    #[must_use]
    pub fn probe_port(&self, resource: &Resource) -> Option<u16> {
        let protocol = self.check.protocol()?;
        self.port.or_else(|| {
            let mut ports = resource.ports.iter();
            ports.find_map(|port| match port.port {
                PortNumber::One(number) if port.protocol == protocol => {
                    Some(port.backend_port.unwrap_or(number))
                }
                _ => None,
            })
        })
    }

    /// Returns the reason why the check has no effect on a resource, with the remedy.
    #[must_use]
    pub fn ineffective_for(&self, resource: &Resource) -> Option<String> {
        let protocol = self.check.protocol()?;
        if self.probe_port(resource).is_some() {
            return None;
        }
        let (name, other) = (
            &resource.name,
            match protocol {
                Protocol::Tcp => "udp",
                Protocol::Udp => "tcp",
            },
        );
        Some(format!(
            "resource {name} offers no single {} port that a check could probe: set the port of the check \
             (--health-port), or use a check of {other} (--health-check {other})",
            protocol.to_string().to_uppercase(),
        ))
    }

    /// Checks the ranges of the fields.
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
        for (field, payload) in [("send", &self.send), ("expect", &self.expect)] {
            if self.check != HealthCheckKind::Udp && !payload.is_empty() {
                let text = format!("{field} has no effect without a UDP check: set check to udp");
                return Err(problem(field, text));
            }
        }
        let is_valid = self.path.starts_with('/')
            && self.path.len() <= 1_024
            && self.path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_valid {
            return Err(problem(
                "path",
                format!(
                    "{:?} is not a path of a URL: begin it with /, without spaces, and use at most 1024 bytes",
                    text::truncated(&self.path, 80)
                ),
            ));
        }
        Ok(())
    }
}

/// Health of a backend according to its checks so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthState {
    /// True if the backend is unhealthy.
    pub unhealthy: bool,
    /// Number of consecutive checks whose outcome contradicts `unhealthy`.
    streak: u32,
    /// Error of the last failed check.
    pub last_error: Option<String>,
}

impl HealthState {
    /// Records the outcome of a check. Returns true if it changes the backend's health. A backend that was never
    /// checked is healthy until it has failed `unhealthy_threshold` checks.
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
    fn thresholds_count_consecutive_checks() {
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
    fn each_check_probes_the_first_port_of_its_protocol() {
        let resource = |ports: &[&str]| Resource {
            name: "web".parse().unwrap(),
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            backends: Vec::new(),
        };
        let mixed = resource(&["*", "53/udp:5353", "54/udp", "80:8080", "443"]);
        let (udp_only, every) = (resource(&["53/udp"]), resource(&["*", "*/udp"]));
        let with = |check, port| HealthCheck {
            check,
            port,
            ..HealthCheck::default()
        };
        for (kind, of_mixed, of_udp_only) in [
            (HealthCheckKind::None, None, None),
            (HealthCheckKind::Tcp, Some(8_080), None),
            (HealthCheckKind::Http, Some(8_080), None),
            (HealthCheckKind::Https, Some(8_080), None),
            (HealthCheckKind::Udp, Some(5_353), Some(53)),
        ] {
            let check = with(kind, None);
            assert_eq!(check.probe_port(&mixed), of_mixed, "{kind:?}");
            assert_eq!(check.probe_port(&udp_only), of_udp_only, "{kind:?}");
            assert_eq!(check.probe_port(&every), None, "{kind:?}");
            let ineffective = kind != HealthCheckKind::None;
            assert_eq!(
                check.ineffective_for(&every).is_some(),
                ineffective,
                "{kind:?}"
            );
            let check = with(kind, Some(9));
            assert_eq!(check.probe_port(&every).is_some(), ineffective, "{kind:?}");
            assert_eq!(check.ineffective_for(&every), None, "{kind:?}");
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
            (r#"{"check": "tcp", "send": "a"}"#, "health_check.send"),
            (r#"{"expect": "a"}"#, "health_check.expect"),
        ] {
            assert_eq!(check(json).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
