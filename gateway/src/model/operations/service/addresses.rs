//! Addresses of a service: conflicts with other users of its network, and with the host.

use std::{collections::HashSet, net::IpAddr};

use crate::model::{
    HostAddresses, Problem, ProblemCode, Reference, State, address::AddressRange,
    service::ServiceSpec,
};

/// Refuses addresses that are in use, or not usable, in the service's network.
///
/// Addresses of `old_spec` were checked before and are not checked against the host again. The host may have got one of
/// them since: such an address is not programmed, and a change of other fields must stay possible.
pub(super) fn check_network_use(
    state: &State,
    host: &HostAddresses,
    reference: &Reference,
    spec: &ServiceSpec,
    old_spec: Option<&ServiceSpec>,
) -> Result<(), Problem> {
    let network = Reference::new(reference.tenant.clone(), spec.network.clone());
    let Some(found) = state.networks.get(&network) else {
        return Err(Problem::invalid(
            "network",
            format!("there is no network {network}: create it first"),
        ));
    };
    spec.check()?;
    let occupancy = state.occupancy(&network);
    let old_spec = old_spec.filter(|before| before.network == spec.network);
    let old_ranges: HashSet<&AddressRange> = old_spec
        .into_iter()
        .flat_map(|before| &before.nat_addresses)
        .collect();
    for (index, range) in spec.nat_addresses.iter().enumerate() {
        let field = format!("nat_addresses[{index}]");
        let in_use = |what: String| {
            Problem::new(ProblemCode::InUse, format!("{range} holds {what}")).at(field.clone())
        };
        if !old_ranges.contains(range) {
            found.object.check_nat_range(&field, *range)?;
            let conflict = host.range_conflict(state, &network, &found.object, *range);
            if let Some(detail) = conflict {
                return Err(Problem::new(ProblemCode::InUse, detail).at(field));
            }
        }
        if let Some((address, endpoint)) = occupancy.endpoint_in(*range) {
            return Err(in_use(format!("{address}, which is endpoint {endpoint}")));
        }
        let mut ranges = occupancy.nat_ranges_in(*range);
        if let Some((other_range, other)) = ranges.find(|(_, other)| *other != reference) {
            return Err(in_use(format!(
                "source NAT addresses of service {other} ({other_range})"
            )));
        }
        let mut backends = occupancy.backends_in(*range);
        if let Some((address, other)) = backends.find(|(_, other)| *other != reference) {
            return Err(in_use(format!("{address}, a backend of service {other}")));
        }
    }
    check_backends(state, host, reference, &network, spec, old_spec)
}

/// Refuses a backend whose address is the host's, is reserved, or is a local address of the gateway in the network.
fn check_backends(
    state: &State,
    host: &HostAddresses,
    reference: &Reference,
    network: &Reference,
    spec: &ServiceSpec,
    old_spec: Option<&ServiceSpec>,
) -> Result<(), Problem> {
    let Some(found) = state.networks.get(network) else {
        return Ok(());
    };
    let occupancy = state.occupancy(network);
    let reserved: Vec<(&str, IpAddr)> = found.object.reserved_addresses().collect();
    let old_addresses: HashSet<IpAddr> = old_spec
        .into_iter()
        .flat_map(|before| &before.resources)
        .flat_map(|resource| &resource.backends)
        .map(|backend| backend.address)
        .collect();
    for (r, resource) in spec.resources.iter().enumerate() {
        for (b, backend) in resource.backends.iter().enumerate() {
            let field = || format!("resources[{r}].backends[{b}].address");
            let in_use = |detail: String| Err(Problem::new(ProblemCode::InUse, detail).at(field()));
            let address = backend.address;
            // Health checks of a tenant's backend must not reach the host itself.
            let conflict = host.conflict(state, network, &found.object, address);
            if let Some(detail) = conflict.filter(|_| !old_addresses.contains(&address)) {
                return in_use(detail);
            }
            if let Some((what, _)) = reserved.iter().find(|(_, reserved)| *reserved == address) {
                return in_use(format!("{address} is {what}, not a server"));
            }
            if let Some(endpoint) = occupancy.endpoint_at(address) {
                return in_use(format!(
                    "{address} is endpoint {endpoint} in this network, not a server"
                ));
            }
            let nat_range = occupancy.nat_range_at(address);
            if let Some((_, other)) = nat_range.filter(|(_, other)| *other != reference) {
                return in_use(format!(
                    "{address} is a source NAT address of service {other}"
                ));
            }
        }
    }
    Ok(())
}
