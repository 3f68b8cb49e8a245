//! Uses of interfaces by the host itself: routes, addresses that programs listen at, open connections.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::{Context as _, Result};

use crate::{
    host::sockets::{Socket, SocketState, tcp_sockets},
    model::{HostUses, address::check_host},
    netlink::{HostRoute, Netlink, StackedInterface},
};

/// Maximum number of routes, and of connections, of an interface that are named one by one.
const MAX_NAMED: usize = 3;

/// Returns the uses of all interfaces.
///
/// # Errors
/// When a netlink request fails, or the host's sockets can't be read.
pub(crate) async fn scan_host_uses(netlink: &Netlink) -> Result<HostUses> {
    let interfaces = netlink.stacked_interfaces().await?;
    let routes = netlink.host_routes().await?;
    let addresses = netlink.addresses().await?.into_iter();
    let addresses: Vec<_> = addresses.map(|own| (own.ifindex, own.address)).collect();
    let sockets = tokio::task::block_in_place(tcp_sockets);
    let sockets = sockets.context("could not list the TCP sockets of the host")?;
    Ok(host_uses(&interfaces, &routes, &addresses, &sockets))
}

/// Returns the uses of all interfaces. Pure.
fn host_uses(
    interfaces: &BTreeMap<u32, StackedInterface>,
    routes: &[HostRoute],
    addresses: &[(u32, IpAddr)],
    sockets: &[Socket],
) -> HostUses {
    let assignable = addresses
        .iter()
        .filter(|(_, address)| check_host("", *address).is_ok());
    let assignable: Vec<(u32, IpAddr)> = assignable.copied().collect();
    let uses = interfaces.values().map(|interface| {
        let stack = stack_above(interfaces, interface.ifindex);
        let mut uses = route_uses(routes, &stack);
        uses.extend(address_uses(&assignable, sockets, &stack));
        (interface.name.clone(), uses)
    });
    uses.filter(|(_, uses)| !uses.is_empty()).collect()
}

/// Returns the interface and all that receive through it: its bridge or bond, and VLANs on any of these.
fn stack_above(interfaces: &BTreeMap<u32, StackedInterface>, ifindex: u32) -> BTreeSet<u32> {
    let mut stack = BTreeSet::new();
    let mut next = vec![ifindex];
    while let Some(index) = next.pop() {
        if !stack.insert(index) {
            continue;
        }
        next.extend(interfaces.get(&index).and_then(|found| found.controller));
        let above = interfaces
            .values()
            .filter(|other| other.lower == Some(index));
        next.extend(above.map(|other| other.ifindex));
    }
    stack
}

/// Returns the routes through the interfaces, default routes first.
fn route_uses(routes: &[HostRoute], stack: &BTreeSet<u32>) -> Vec<String> {
    let routes = routes.iter().filter(|route| stack.contains(&route.ifindex));
    let (defaults, others): (Vec<&HostRoute>, Vec<&HostRoute>) =
        routes.partition(|route| route.destination.is_none());
    let via = |route: &HostRoute| match route.router {
        Some(router) => format!(" via {router}"),
        None => String::new(),
    };
    let mut uses: Vec<String> = defaults
        .iter()
        .map(|route| {
            let family = if route.is_ipv6 { "IPv6" } else { "IPv4" };
            format!("its {family} default route{}", via(route))
        })
        .collect();
    let named = others.iter().filter_map(|route| {
        let (address, length) = route.destination?;
        Some(format!("its route to {address}/{length}{}", via(route)))
    });
    uses.extend(named.take(MAX_NAMED));
    if others.len() > MAX_NAMED {
        uses.push(format!("{} more routes", others.len() - MAX_NAMED));
    }
    uses
}

/// Returns the addresses on the interfaces that the host is reached at: those that a program listens at, and all if the
/// host has no other and a program listens at any address. Then the connections that are open to such an address.
fn address_uses(
    addresses: &[(u32, IpAddr)],
    sockets: &[Socket],
    stack: &BTreeSet<u32>,
) -> Vec<String> {
    let own: BTreeSet<IpAddr> = addresses
        .iter()
        .filter(|(ifindex, _)| stack.contains(ifindex))
        .map(|(_, address)| *address)
        .collect();
    let has_others = addresses
        .iter()
        .any(|(ifindex, _)| !stack.contains(ifindex));
    let mut ports: HashMap<IpAddr, BTreeSet<u16>> = HashMap::new();
    let mut listening = BTreeSet::new();
    for socket in sockets {
        if socket.state != SocketState::Listening {
            continue;
        }
        let (address, port) = (socket.local.ip(), socket.local.port());
        listening.insert(port);
        if own.contains(&address) {
            ports.entry(address).or_default().insert(port);
        } else if address.is_unspecified() && !has_others {
            // A socket of IPv6 at any address may serve IPv4, too.
            let served = own.iter().filter(|own| own.is_ipv4() || address.is_ipv6());
            for own in served {
                ports.entry(*own).or_default().insert(port);
            }
        }
    }
    let mut uses = Vec::new();
    for address in &own {
        let Some(ports) = ports.get(address) else {
            continue;
        };
        let shown: Vec<String> = ports.iter().take(MAX_NAMED).map(u16::to_string).collect();
        let more = if ports.len() > MAX_NAMED { ", ..." } else { "" };
        let only = if has_others {
            "its address"
        } else {
            "its only address,"
        };
        let comma = if has_others { "" } else { "," };
        uses.push(format!(
            "{only} {address}{comma} where programs listen (TCP port {}{more})",
            shown.join(", ")
        ));
    }
    // Connections that the host itself opened, health checks for example, can be opened again.
    let inbound = sockets.iter().filter(|socket| {
        socket.state == SocketState::Established
            && own.contains(&socket.local.ip())
            && listening.contains(&socket.local.port())
    });
    let inbound: Vec<&Socket> = inbound.collect();
    for Socket { local, remote, .. } in inbound.iter().take(MAX_NAMED) {
        uses.push(format!("the open connection of {} to {local}", remote.ip()));
    }
    if inbound.len() > MAX_NAMED {
        uses.push(format!("{} more connections", inbound.len() - MAX_NAMED));
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(ifindex: u32, name: &str) -> (u32, StackedInterface) {
        let found = StackedInterface {
            name: name.to_owned(),
            ifindex,
            controller: None,
            lower: None,
        };
        (ifindex, found)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn socket(local: &str, remote: &str, state: SocketState) -> Socket {
        Socket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
        }
    }

    fn default_route(ifindex: u32, router: &str) -> HostRoute {
        HostRoute {
            ifindex,
            destination: None,
            router: Some(ip(router)),
            is_ipv6: false,
        }
    }

    #[test]
    fn a_connected_prefix_alone_is_no_use() {
        let interfaces = [interface(1, "lo"), interface(2, "eth1")].into();
        let addresses = [
            (1, ip("127.0.0.1")),
            (2, ip("10.1.0.1")),
            (2, ip("fe80::1")),
        ];
        let local = [
            socket("127.0.0.1:22", "0.0.0.0:0", SocketState::Listening),
            // A health check.
            socket("10.1.0.1:51000", "10.1.0.10:80", SocketState::Established),
        ];
        assert_eq!(
            host_uses(&interfaces, &[], &addresses, &local),
            HostUses::default()
        );
    }

    #[test]
    fn routes_are_named_with_the_default_route_first() {
        let interfaces = [interface(2, "eth1"), interface(3, "eth2")].into();
        let mut routes = vec![default_route(2, "10.1.0.254")];
        for last in 0..5 {
            routes.push(HostRoute {
                destination: Some((ip(&format!("10.9.{last}.0")), 24)),
                ..default_route(2, "10.1.0.253")
            });
        }
        let uses = host_uses(&interfaces, &routes, &[], &[]);
        assert_eq!(
            uses.of_interface("eth1"),
            [
                "its IPv4 default route via 10.1.0.254",
                "its route to 10.9.0.0/24 via 10.1.0.253",
                "its route to 10.9.1.0/24 via 10.1.0.253",
                "its route to 10.9.2.0/24 via 10.1.0.253",
                "2 more routes",
            ]
        );
        assert!(uses.of_interface("eth2").is_empty());
    }

    #[test]
    fn ports_of_bridges_and_interfaces_below_vlans_carry_what_is_above() {
        let (mut port, mut vlan) = (interface(2, "eth1"), interface(4, "br0.7"));
        port.1.controller = Some(3);
        vlan.1.lower = Some(3);
        let interfaces = [port, interface(3, "br0"), vlan, interface(5, "eth2")].into();
        let uses = host_uses(&interfaces, &[default_route(4, "10.1.0.254")], &[], &[]);
        for name in ["eth1", "br0", "br0.7"] {
            assert_eq!(uses.of_interface(name).len(), 1, "{name}");
        }
        assert!(uses.of_interface("eth2").is_empty());
    }

    #[test]
    fn addresses_count_where_the_host_is_reached() {
        let interfaces = [interface(2, "eth1"), interface(3, "eth2")].into();
        let addresses = [(2, ip("10.1.0.1")), (3, ip("192.0.2.1"))];
        let any = socket("0.0.0.0:22", "0.0.0.0:0", SocketState::Listening);
        let specific = socket("192.0.2.1:8443", "0.0.0.0:0", SocketState::Listening);
        let session = socket("10.1.0.1:22", "10.1.0.99:50000", SocketState::Established);
        // Any address is served, and there is another one.
        let uses = host_uses(&interfaces, &[], &addresses, &[any]);
        assert_eq!(uses, HostUses::default());
        let uses = host_uses(&interfaces, &[], &addresses, &[any, specific, session]);
        assert_eq!(
            uses.of_interface("eth1"),
            ["the open connection of 10.1.0.99 to 10.1.0.1:22"]
        );
        assert_eq!(
            uses.of_interface("eth2"),
            ["its address 192.0.2.1 where programs listen (TCP port 8443)"]
        );
        let uses = host_uses(&interfaces, &[], &addresses[..1], &[any]);
        assert_eq!(
            uses.of_interface("eth1"),
            ["its only address, 10.1.0.1, where programs listen (TCP port 22)"]
        );
    }
}
