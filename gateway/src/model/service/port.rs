//! Ports of resources.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, Type},
};

use crate::model::schema;

/// Transport protocol of a port.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns the protocol number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => gateway_common::packet::protocol::TCP,
            Self::Udp => gateway_common::packet::protocol::UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(format!("{text:?} is not a protocol: use tcp or udp")),
        }
    }
}

/// Port that clients connect to: a number, or every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "PortRepr", into = "PortRepr")]
pub enum PortNumber {
    /// One port, which is not 0.
    One(u16),
    /// Every port that has no entry of its own.
    Every,
}

/// JSON form of a port.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PortRepr {
    Number(u16),
    Text(String),
}

impl TryFrom<PortRepr> for PortNumber {
    type Error = String;

    fn try_from(repr: PortRepr) -> Result<Self, String> {
        match repr {
            PortRepr::Number(0) => Err("port 0 can't be connected to".to_owned()),
            PortRepr::Number(number) => Ok(Self::One(number)),
            PortRepr::Text(text) if text == "*" => Ok(Self::Every),
            PortRepr::Text(_) => Err("a port is a number from 1 to 65535, or \"*\"".to_owned()),
        }
    }
}

impl From<PortNumber> for PortRepr {
    fn from(port: PortNumber) -> Self {
        match port {
            PortNumber::One(number) => Self::Number(number),
            PortNumber::Every => Self::Text("*".to_owned()),
        }
    }
}

impl fmt::Display for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(number) => number.fmt(f),
            Self::Every => f.pad("*"),
        }
    }
}

/// Port of a resource, written `443`, `53/udp`, `80:8080`, `443/tcp:8443` or `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Transport protocol. Unset: TCP.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// Port that clients connect to.
    pub port: PortNumber,
    /// Port of the backends. Unset: the port that clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_port: Option<u16>,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

impl FromStr for Port {
    type Err = String;

    /// Parses a port: `PORT`, `PORT/PROTOCOL`, `PORT:BACKEND_PORT`, `PORT/PROTOCOL:BACKEND_PORT`, or `*` for all ports.
    ///
    /// # Examples
    /// ```
    /// use gateway::model::service::{Port, PortNumber};
    ///
    /// let port: Port = "443/tcp:8443".parse()?;
    /// assert_eq!(port.port, PortNumber::One(443));
    /// assert_eq!(port.backend_port, Some(8443));
    /// # Ok::<(), String>(())
    /// ```
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a port: write 443, 53/udp, 80:8080, 443/tcp:8443 or *");
        let number = |text: &str| match text.parse::<u16>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(wrong()),
        };
        let (front, backend) = match text.split_once(':') {
            Some((front, backend)) => (front, Some(number(backend)?)),
            None => (text, None),
        };
        let (port, protocol) = match front.split_once('/') {
            Some((port, protocol)) => (port, protocol.parse()?),
            None => (front, Protocol::Tcp),
        };
        let port = if port == "*" {
            PortNumber::Every
        } else {
            PortNumber::One(number(port)?)
        };
        Ok(Self {
            protocol,
            port,
            backend_port: backend,
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)?;
        match self.backend_port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

schema::schemas! {
    PortNumber, "PortNumber",
        OneOfBuilder::new()
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(1))
                    .maximum(Some(65_535)),
            )
            .item(schema::text("all ports").enum_values(Some(["*"])));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_text() {
        for (text, shown) in [
            ("443", "443/tcp"),
            ("53/udp", "53/udp"),
            ("80:8080", "80/tcp:8080"),
            ("443/tcp:8443", "443/tcp:8443"),
            ("*", "*/tcp"),
            ("*/udp", "*/udp"),
        ] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), shown);
        }
        for bad in [
            "", "0", "65536", "x", "80/sctp", "80:", "80:0", "80:x", "/udp",
        ] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }
}
