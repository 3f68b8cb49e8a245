//! Networks: isolated address spaces that the gateway is connected to through attachments.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    Name, Problem, ProblemCode,
    address::{AddressRange, check_host, check_hosts},
    limits,
    record::Labels,
    schema, strict,
};

/// Host interface through which the gateway is connected to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Name of the interface.
    #[schema(max_length = 15)]
    pub interface: String,
}

/// Stored network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Interfaces through which the gateway is connected to the network.
    pub attachments: Vec<Attachment>,
    /// If true, packets from the network to addresses other than those of endpoints and SNAT are dropped; if false,
    /// they are passed to the host. Unset: they are dropped as long as the network has no service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// Maximum size of an IP packet sent into the network, in bytes. Unset: the MTU of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Prefixes of the network. If set, only addresses that a host within them can have are accepted. Unset: any
    /// address is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<IpNet>,
    /// Routers of the network. No endpoint, backend or SNAT range may have their addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<IpAddr>,
    /// Addresses for endpoints that are created without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<AddressRange>,
    /// Identifier of the network in the data path.
    pub number: u32,
}

/// Request to create or change a network.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Name of the network. Unset in a request to change one, whose path has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Version of the network that the change applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Labels. Unset: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Labels>)]
    pub labels: Option<Labels>,
    /// Interfaces through which the gateway is connected to the network.
    #[serde(deserialize_with = "strict::objects")]
    #[schema(max_items = 64)]
    pub attachments: Vec<Attachment>,
    /// If true, packets from the network to addresses other than those of endpoints and SNAT are dropped; if false,
    /// they are passed to the host. Unset: they are dropped as long as the network has no service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// Maximum size of an IP packet sent into the network, in bytes. Unset: the MTU of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 68)]
    pub mtu: Option<u16>,
    /// Prefixes of the network. If set, only addresses that a host within them can have are accepted. Unset: any
    /// address is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Prefix>, max_items = 64)]
    pub prefixes: Vec<IpNet>,
    /// Routers of the network. No endpoint, backend or SNAT range may have their addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::IpAddress>, max_items = 64)]
    pub routers: Vec<IpAddr>,
    /// Addresses for endpoints that are created without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub pool: Vec<AddressRange>,
    /// Attach interfaces even if the gateway's host needs them itself, for its default route for example.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Minimum MTU of a link that carries IPv4 (RFC 791).
const MIN_MTU: u16 = 68;

impl NetworkRequest {
    /// Checks the fields that do not depend on other objects.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.attachments.is_empty() {
            return Err(Problem::invalid(
                "attachments",
                "a network needs at least one attachment: name the interface that leads to it",
            ));
        }
        let mut interfaces = HashSet::new();
        for (index, attachment) in self.attachments.iter().enumerate() {
            let field = format!("attachments[{index}].interface");
            check_interface_name(&field, &attachment.interface)?;
            if !interfaces.insert(&attachment.interface) {
                return Err(Problem::invalid(
                    field,
                    format!("interface {} is named twice", attachment.interface),
                ));
            }
        }
        self.check_addresses()?;
        if let Some(mtu) = self.mtu
            && mtu < MIN_MTU
        {
            return Err(Problem::invalid(
                "mtu",
                format!("an MTU of {mtu} is below the minimum of IPv4: use at least {MIN_MTU}"),
            ));
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), Problem> {
        for (field, count) in [
            ("prefixes", self.prefixes.len()),
            ("routers", self.routers.len()),
            ("pool", self.pool.len()),
        ] {
            if count > MAX_RANGES {
                let detail = format!("a network has at most {MAX_RANGES} {field}");
                return Err(Problem::invalid(field, detail));
            }
        }
        for (index, prefix) in self.prefixes.iter().enumerate() {
            if *prefix != prefix.trunc() {
                let detail = format!(
                    "{prefix} has bits set beyond its length: write {}",
                    prefix.trunc()
                );
                return Err(Problem::invalid(format!("prefixes[{index}]"), detail));
            }
        }
        for (index, router) in self.routers.iter().enumerate() {
            let field = format!("routers[{index}]");
            check_host(&field, *router)?;
            check_within(&field, *router, &self.prefixes)?;
        }
        for (index, range) in self.pool.iter().enumerate() {
            let field = format!("pool[{index}]");
            check_hosts(&field, *range)?;
            let (first, last) = range.ends();
            for end in [first, last] {
                let mut prefixes = self.prefixes.iter();
                if !self.prefixes.is_empty() && !prefixes.any(|prefix| prefix.contains(&end)) {
                    let detail = format!("{end} is in none of the network's prefixes");
                    return Err(Problem::invalid(field, detail));
                }
            }
        }
        Ok(())
    }
}

/// Maximum number of prefixes, of routers, and of ranges in a pool.
const MAX_RANGES: usize = 64;

/// Refuses an address that no host of a network with these prefixes can have: one outside of them, and the network and
/// broadcast addresses of IPv4 (RFC 1122, section 3.2.1.3), except in a /31 (RFC 3021). IPv6 has neither, but reserves
/// the subnet-router anycast address (RFC 4291, section 2.6.1).
fn check_within(field: &str, address: IpAddr, prefixes: &[IpNet]) -> Result<(), Problem> {
    let mut same_family = prefixes
        .iter()
        .filter(|prefix| prefix.network().is_ipv4() == address.is_ipv4())
        .peekable();
    let invalid = |text: String| Err(Problem::invalid(field, text));
    if same_family.peek().is_none() {
        return if prefixes.is_empty() {
            Ok(())
        } else {
            invalid(format!("{address} is in none of the network's prefixes"))
        };
    }
    let Some(prefix) = same_family.find(|prefix| prefix.contains(&address)) else {
        return invalid(format!("{address} is in none of the network's prefixes"));
    };
    // A point-to-point link of two hosts, or a single host.
    if prefix.max_prefix_len() - prefix.prefix_len() < 2 {
        return Ok(());
    }
    if address == prefix.network() {
        let what = if address.is_ipv4() {
            "the address of the network itself"
        } else {
            "the anycast address of its routers"
        };
        return invalid(format!("{address} is {what} ({prefix})"));
    }
    if address.is_ipv4() && address == prefix.broadcast() {
        return invalid(format!("{address} is the broadcast address of {prefix}"));
    }
    Ok(())
}

/// Refuses a range that is not wholly within one of the prefixes. Without prefixes, every range is accepted.
fn check_range_within(field: &str, range: AddressRange, prefixes: &[IpNet]) -> Result<(), Problem> {
    let (first, last) = range.ends();
    let holds = |prefix: &IpNet| prefix.contains(&first) && prefix.contains(&last);
    if prefixes.is_empty() || prefixes.iter().any(holds) {
        return Ok(());
    }
    let detail = format!(
        "{range} is not wholly within one of the network's prefixes: choose other addresses, or add a prefix to the \
         network"
    );
    Err(Problem::invalid(field, detail))
}

impl Network {
    /// Refuses a stored network that no request can create.
    ///
    /// # Errors
    /// Fails as [`NetworkRequest::check`] does.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let request = NetworkRequest {
            name: None,
            version: None,
            labels: None,
            attachments: self.attachments.clone(),
            isolated: self.isolated,
            mtu: self.mtu,
            prefixes: self.prefixes.clone(),
            routers: self.routers.clone(),
            pool: self.pool.clone(),
            force: false,
        };
        request.check()
    }

    /// Refuses a SNAT range that is not within the network's prefixes, or that holds the address of a router or an
    /// address that no host of the network can have.
    ///
    /// # Errors
    /// Fails with [`ProblemCode::Invalid`] or [`ProblemCode::InUse`], for the field.
    pub fn check_nat_range(&self, field: &str, range: AddressRange) -> Result<(), Problem> {
        check_range_within(field, range, &self.prefixes)?;
        let mut reserved = self.reserved_addresses();
        match reserved.find(|(_, address)| range.contains(*address)) {
            Some((what, address)) => {
                let detail =
                    format!("{range} holds {address}, {what}: choose addresses without it");
                Err(Problem::new(ProblemCode::InUse, detail).at(field))
            }
            None => Ok(()),
        }
    }

    /// Refuses the address of a router, and an address that no host of the network can have.
    ///
    /// # Errors
    /// Fails with [`ProblemCode::Invalid`] or [`ProblemCode::InUse`], for the field.
    pub fn check_member(&self, field: &str, address: IpAddr) -> Result<(), Problem> {
        check_within(field, address, &self.prefixes)?;
        if self.routers.contains(&address) {
            let detail = format!("{address} is a router of the network");
            return Err(Problem::new(ProblemCode::InUse, detail).at(field));
        }
        Ok(())
    }

    /// Returns the addresses that neither backends nor SNAT ranges can have, each with a description.
    pub fn reserved_addresses(&self) -> impl Iterator<Item = (&'static str, IpAddr)> {
        let routers = self
            .routers
            .iter()
            .map(|router| ("a router of the network", *router));
        let has_broadcast = |prefix: &&IpNet| prefix.max_prefix_len() - prefix.prefix_len() >= 2;
        let network_addresses = self.prefixes.iter().filter(has_broadcast);
        routers.chain(network_addresses.flat_map(|prefix| {
            let (first, last) = (prefix.network(), prefix.broadcast());
            if first.is_ipv4() {
                vec![
                    ("the address of the network itself", first),
                    ("the network's broadcast address", last),
                ]
            } else {
                vec![("the anycast address of the network's routers", first)]
            }
        }))
    }
}

/// Refuses a name that Linux does not allow for an interface: 1 to 15 bytes, without slash, space and colon.
fn check_interface_name(field: &str, name: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    let valid = (1..=limits::MAX_INTERFACE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(allowed);
    if valid {
        Ok(())
    } else {
        let shown: String = name.chars().take(40).collect();
        Err(Problem::invalid(
            field,
            format!("{shown:?} can't be the name of a network interface (1 to 15 characters)"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_host_can_have_are_refused() {
        let prefixes: Vec<IpNet> = ["10.0.0.0/24", "10.1.0.0/31", "fd00::/64"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let check = |address: &str| check_within("a", address.parse().unwrap(), &prefixes);
        for fine in ["10.0.0.1", "10.0.0.254", "10.1.0.0", "10.1.0.1", "fd00::1"] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for (wrong, says) in [
            ("10.0.0.0", "the address of the network itself"),
            ("10.0.0.255", "the broadcast address of 10.0.0.0/24"),
            ("10.0.1.1", "in none of the network's prefixes"),
            ("fd00::", "the anycast address of its routers"),
            ("fd01::1", "in none"),
        ] {
            let problem = check(wrong).unwrap_err();
            assert!(problem.detail.contains(says), "{wrong}: {problem}");
        }
        assert_eq!(check_within("a", "192.0.2.1".parse().unwrap(), &[]), Ok(()));
        let v6_only = &prefixes[2..];
        assert!(check_within("a", "10.0.0.1".parse().unwrap(), v6_only).is_err());
    }
}
