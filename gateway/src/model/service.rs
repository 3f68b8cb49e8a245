//! Services: the provider's side.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::{
    Name, Problem,
    address::{AddressRange, check_host},
    record::Labels,
};

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The number in the IP header.
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

/// A port that clients connect to: a number, or every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "PortRepr", into = "PortRepr")]
pub enum PortNumber {
    /// This one; not 0.
    One(u16),
    /// Every port that is not named by itself.
    Every,
}

/// How a port is written in JSON.
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

/// A port that a resource offers. As text: `443`, `53/udp`, `80:8080`, `443/tcp:8443`, `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its protocol; TCP where unset.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The port that clients connect to.
    pub port: PortNumber,
    /// The port of the backends; unset: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_port: Option<u16>,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

impl FromStr for Port {
    type Err = String;

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

/// A server of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its address in the provider's network.
    pub address: IpAddr,
    /// Its share of new flows, against the other backends' weights; 0 takes none.
    #[serde(default = "one")]
    pub weight: u16,
    /// Takes no new flows; those it has go on.
    #[serde(default)]
    pub drain: bool,
}

const fn one() -> u16 {
    1
}

/// The largest weight.
pub const MOST_WEIGHT: u16 = 1_000;

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        let address = address
            .parse()
            .map_err(|_| format!("{address:?} is not the address of a backend"))?;
        let mut backend = Self {
            address,
            weight: 1,
            drain: false,
        };
        for part in parts {
            match part.split_once('=') {
                Some(("weight", weight)) => {
                    backend.weight = weight
                        .parse()
                        .map_err(|_| format!("{weight:?} is not a weight"))?;
                }
                _ if part == "drain" => backend.drain = true,
                _ => {
                    return Err(format!(
                        "{part:?} is unknown: write ADDRESS[,weight=N][,drain]"
                    ));
                }
            }
        }
        Ok(backend)
    }
}

/// One named instance inside a service; an endpoint is bound to exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Its name within the service.
    #[serde(default = "default_resource")]
    pub name: Name,
    /// What it offers.
    pub ports: Vec<Port>,
    /// Who serves it.
    #[serde(default)]
    pub backends: Vec<Backend>,
}

/// The name of a resource that was given none.
///
/// # Panics
/// Never: the literal is a name.
#[must_use]
pub fn default_resource() -> Name {
    #[expect(clippy::expect_used, reason = "a literal")]
    "default".parse().expect("a name")
}

/// Tenants by name, or all: a list, in which `*` stands alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub enum TenantSet {
    /// None.
    #[default]
    None,
    /// Those named.
    Some(Vec<Name>),
    /// Every tenant.
    Every,
}

impl TenantSet {
    /// Whether the tenant is meant.
    #[must_use]
    pub fn contains(&self, tenant: &Name) -> bool {
        match self {
            Self::None => false,
            Self::Some(names) => names.contains(tenant),
            Self::Every => true,
        }
    }
}

impl TryFrom<Vec<String>> for TenantSet {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        match list.as_slice() {
            [] => Ok(Self::None),
            [star] if star == "*" => Ok(Self::Every),
            _ if list.iter().any(|name| name == "*") => {
                Err("\"*\" stands for every tenant and must be alone in the list".to_owned())
            }
            _ => {
                let names: Result<Vec<Name>, _> = list.iter().map(|name| name.parse()).collect();
                names.map(Self::Some).map_err(|error| error.to_string())
            }
        }
    }
}

impl From<TenantSet> for Vec<String> {
    fn from(set: TenantSet) -> Self {
        match set {
            TenantSet::None => Self::new(),
            TenantSet::Some(names) => names.into_iter().map(String::from).collect(),
            TenantSet::Every => vec!["*".to_owned()],
        }
    }
}

impl fmt::Display for TenantSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&Vec::from(self.clone()).join(","))
    }
}

/// What a client gets when no backend can take its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoBackend {
    /// A TCP reset, at once.
    #[default]
    Reset,
    /// Silence.
    Drop,
}

/// What keeps a client's flows on one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionAffinity {
    /// Nothing: each flow is balanced by itself.
    #[default]
    None,
    /// The client's address: as long as the backends stay the same, so does its backend.
    ClientAddress,
}

/// How long a flow may be idle, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// An open TCP connection (RFC 5382, REQ-5).
    pub tcp_established: u32,
    /// A TCP connection that is opening, closing or reset (RFC 5382, REQ-5).
    pub tcp_transitory: u32,
    /// UDP (RFC 4787, REQ-5).
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
    /// A week: the longest that can be set.
    const LONGEST: u32 = 604_800;
    /// The shortest: the data path counts time in ticks of about a second.
    const SHORTEST: u32 = 5;

    fn check(self) -> Result<(), Problem> {
        for (field, value) in [
            ("timeouts.tcp_established", self.tcp_established),
            ("timeouts.tcp_transitory", self.tcp_transitory),
            ("timeouts.udp", self.udp),
        ] {
            if !(Self::SHORTEST..=Self::LONGEST).contains(&value) {
                return Err(Problem::invalid(
                    field,
                    format!(
                        "{value} seconds is out of range: {} to {}",
                        Self::SHORTEST,
                        Self::LONGEST
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// What a user says of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRequest {
    /// The service's name; in the path when an existing one is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The version that the change was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels; unchanged where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// What the provider decides.
    #[serde(flatten)]
    pub spec: ServiceSpec,
}

/// The fields of a service that its provider sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The provider's network.
    pub network: Name,
    /// What can be connected to.
    pub resources: Vec<Resource>,
    /// From where consumers appear in the provider's network.
    pub nat_addresses: Vec<AddressRange>,
    /// Who may see it.
    #[serde(default)]
    pub visibility: TenantSet,
    /// Whose requests are approved at once.
    #[serde(default)]
    pub auto_approval: TenantSet,
    /// Who may not, whatever the other two say.
    #[serde(default)]
    pub denied: TenantSet,
    /// How many connections one tenant may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_tenant: Option<u32>,
    /// When idle flows end.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What a client gets when no backend can take its flow.
    #[serde(default)]
    pub no_backend: NoBackend,
    /// What keeps a client's flows on one backend.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What the provider decided.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// The name it can be connected to by, made once: `NAME.RANDOM.DOMAIN`.
    pub alias: String,
    /// What the data path knows the service by.
    pub number: u32,
    /// What the data path knows its resources by.
    pub resource_numbers: BTreeMap<Name, u32>,
}

/// The most addresses that a service's source NAT uses.
pub const MOST_NAT_ADDRESSES: u64 = 1_024;
/// The most backends of a resource.
pub const MOST_BACKENDS: usize = 256;
const MOST_RESOURCES: usize = 256;
const MOST_PORTS: usize = 1_024;

impl ServiceSpec {
    /// The resource of the name.
    #[must_use]
    pub fn resource(&self, name: &Name) -> Option<&Resource> {
        self.resources
            .iter()
            .find(|resource| resource.name == *name)
    }

    /// Whether the service exists for the tenant.
    #[must_use]
    pub fn visible_to(&self, tenant: &Name) -> bool {
        self.visibility.contains(tenant) && !self.denied.contains(tenant)
    }

    /// Whether the tenant's requests are approved at once.
    #[must_use]
    pub fn approves_at_once(&self, tenant: &Name) -> bool {
        self.auto_approval.contains(tenant) && !self.denied.contains(tenant)
    }

    /// Checks the fields that can be judged alone.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.resources.is_empty() || self.resources.len() > MOST_RESOURCES {
            return Err(Problem::invalid(
                "resources",
                format!("a service has 1 to {MOST_RESOURCES} resources"),
            ));
        }
        for (place, resource) in self.resources.iter().enumerate() {
            let field = format!("resources[{place}]");
            if self.resources[..place]
                .iter()
                .any(|other| other.name == resource.name)
            {
                return Err(Problem::invalid(
                    format!("{field}.name"),
                    format!("resource {} is named twice", resource.name),
                ));
            }
            resource.check(&field)?;
        }
        self.check_nat_addresses()?;
        self.timeouts.check()
    }

    fn check_nat_addresses(&self) -> Result<(), Problem> {
        if self.nat_addresses.is_empty() {
            return Err(Problem::invalid(
                "nat_addresses",
                "a service needs at least one source NAT address in its network",
            ));
        }
        let counts = self.nat_addresses.iter().map(|range| range.count());
        let count = counts.fold(0, u64::saturating_add);
        if count > MOST_NAT_ADDRESSES {
            return Err(Problem::invalid(
                "nat_addresses",
                format!("{count} source NAT addresses are more than {MOST_NAT_ADDRESSES}"),
            ));
        }
        for (place, range) in self.nat_addresses.iter().enumerate() {
            let field = format!("nat_addresses[{place}]");
            let (first, last) = range.ends();
            check_host(&field, first)?;
            check_host(&field, last)?;
            if let Some(other) = self.nat_addresses[..place]
                .iter()
                .find(|other| other.overlaps(*range))
            {
                return Err(Problem::invalid(field, format!("{range} overlaps {other}")));
            }
            for backend in self
                .resources
                .iter()
                .flat_map(|resource| &resource.backends)
            {
                if range.contains(backend.address) {
                    return Err(Problem::invalid(
                        field,
                        format!("{range} holds the backend {}", backend.address),
                    ));
                }
            }
        }
        for (r, resource) in self.resources.iter().enumerate() {
            for (b, backend) in resource.backends.iter().enumerate() {
                let mut ranges = self.nat_addresses.iter();
                let same =
                    |range: &AddressRange| range.ends().0.is_ipv4() == backend.address.is_ipv4();
                if !ranges.any(same) {
                    return Err(Problem::invalid(
                        format!("resources[{r}].backends[{b}].address"),
                        format!(
                            "the service has no source NAT address of the family of backend {}",
                            backend.address
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Resource {
    fn check(&self, field: &str) -> Result<(), Problem> {
        if self.ports.is_empty() || self.ports.len() > MOST_PORTS {
            return Err(Problem::invalid(
                format!("{field}.ports"),
                format!("a resource offers 1 to {MOST_PORTS} ports"),
            ));
        }
        for (place, port) in self.ports.iter().enumerate() {
            let field = format!("{field}.ports[{place}]");
            let same = |other: &Port| (other.protocol, other.port) == (port.protocol, port.port);
            if self.ports[..place].iter().any(same) {
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
        if self.backends.len() > MOST_BACKENDS {
            return Err(Problem::invalid(
                format!("{field}.backends"),
                format!("a resource has at most {MOST_BACKENDS} backends"),
            ));
        }
        for (place, backend) in self.backends.iter().enumerate() {
            let field = format!("{field}.backends[{place}]");
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
            if backend.weight > MOST_WEIGHT {
                return Err(Problem::invalid(
                    format!("{field}.weight"),
                    format!("a weight is at most {MOST_WEIGHT}"),
                ));
            }
            if self.backends[..place]
                .iter()
                .any(|other| other.address == backend.address)
            {
                return Err(Problem::invalid(
                    format!("{field}.address"),
                    format!("backend {} is named twice", backend.address),
                ));
            }
        }
        Ok(())
    }
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

    #[test]
    fn backends_as_text() {
        let backend: Backend = "10.1.0.9,weight=3,drain".parse().unwrap();
        assert_eq!((backend.weight, backend.drain), (3, true));
        for bad in ["", "x", "10.1.0.9,weight=", "10.1.0.9,w=1", "fd00::g"] {
            assert!(bad.parse::<Backend>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tenant_sets() {
        let set = |json: &str| serde_json::from_str::<TenantSet>(json);
        assert_eq!(set("[]").unwrap(), TenantSet::None);
        assert_eq!(set("[\"*\"]").unwrap(), TenantSet::Every);
        assert!(set("[\"a\"]").unwrap().contains(&"a".parse().unwrap()));
        assert!(set("[\"*\",\"a\"]").is_err() && set("[\"A\"]").is_err());
    }
}
