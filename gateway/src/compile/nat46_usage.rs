//! Reference counts of the networks and services in which address families are translated (NAT46, NAT64). Pure.

use std::collections::{BTreeSet, HashMap};

use crate::model::{Endpoint, Record, Reference, State};

/// Contribution of one endpoint to the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointUsage {
    /// Networks in which IPv4 packets are translated into IPv6 for the endpoint.
    networks: Vec<Reference>,
    /// Service of the endpoint if its backends are IPv4, and whether the endpoint reaches them from IPv4 and from
    /// IPv6.
    service: Option<(Reference, bool, bool)>,
}

impl EndpointUsage {
    /// Returns the contribution of an endpoint.
    ///
    /// The connection's state has no influence, so that an approval changes as few map entries as possible.
    pub(super) fn from_endpoint(
        state: &State,
        owner: &Reference,
        record: &Record<Endpoint>,
    ) -> Self {
        let endpoint = &record.object;
        let reference = &endpoint.service_identity.reference;
        let Some(service) = state.services.get(reference) else {
            return Self::default();
        };
        let spec = &service.object.spec;
        let backends = spec.resource(&endpoint.resource);
        let backend = backends.and_then(|resource| resource.backends.first());
        // Flows of removed backends may exist while the resource has no backend: the SNAT addresses show its family.
        let v4 = backend.map_or_else(
            || spec.nat_addresses.iter().all(|r| r.ends().0.is_ipv4()),
            |backend| backend.address.is_ipv4(),
        );
        let mut usage = Self::default();
        let (mut from_v4, mut from_v6) = (false, false);
        for address in &endpoint.addresses {
            match (address.is_ipv4(), v4) {
                (true, false) => {
                    let network = endpoint.network.clone();
                    let network = Reference::new(owner.tenant.clone(), network);
                    usage.networks.push(network);
                }
                (false, true) => {
                    let network = spec.network.clone();
                    let network = Reference::new(reference.tenant.clone(), network);
                    usage.networks.push(network);
                    from_v6 = true;
                }
                (true, true) => from_v4 = true,
                (false, false) => {}
            }
        }
        if from_v4 || from_v6 {
            usage.service = Some((reference.clone(), from_v4, from_v6));
        }
        usage
    }
}

/// Sum of the contributions of all endpoints.
#[derive(Debug, Default)]
pub(super) struct Nat46Usage {
    networks: HashMap<Reference, u32>,
    services: HashMap<Reference, (u32, u32)>,
}

impl Nat46Usage {
    /// Returns true if IPv4 packets are translated into IPv6 in the network.
    pub(super) fn needs_nat46(&self, network: &Reference) -> bool {
        self.networks.contains_key(network)
    }

    /// Returns true if the service's IPv4 backends are reached from IPv4 and from IPv6.
    pub(super) fn shares_snat_pool(&self, service: &Reference) -> bool {
        let counts = self.services.get(service);
        counts.is_some_and(|(from_v4, from_v6)| *from_v4 > 0 && *from_v6 > 0)
    }

    /// Replaces the contribution of an endpoint. Returns the networks and services whose answers to
    /// [`Self::needs_nat46`] and [`Self::shares_snat_pool`] have changed.
    pub(super) fn replace(
        &mut self,
        old: &EndpointUsage,
        new: &EndpointUsage,
    ) -> (Vec<Reference>, Vec<Reference>) {
        if old == new {
            return (Vec::new(), Vec::new());
        }
        let networks: BTreeSet<&Reference> = old.networks.iter().chain(&new.networks).collect();
        let services: BTreeSet<&Reference> = [&old.service, &new.service]
            .into_iter()
            .flatten()
            .map(|(service, ..)| service)
            .collect();
        let translated: Vec<bool> = networks.iter().map(|n| self.needs_nat46(n)).collect();
        let shared: Vec<bool> = services.iter().map(|s| self.shares_snat_pool(s)).collect();
        for network in &old.networks {
            if let Some(count) = self.networks.get_mut(network) {
                *count -= 1;
                if *count == 0 {
                    self.networks.remove(network);
                }
            }
        }
        for network in &new.networks {
            *self.networks.entry(network.clone()).or_default() += 1;
        }
        if let Some((service, from_v4, from_v6)) = &old.service
            && let Some((count_v4, count_v6)) = self.services.get_mut(service)
        {
            *count_v4 -= u32::from(*from_v4);
            *count_v6 -= u32::from(*from_v6);
            if (*count_v4, *count_v6) == (0, 0) {
                self.services.remove(service);
            }
        }
        if let Some((service, from_v4, from_v6)) = &new.service {
            let (count_v4, count_v6) = self.services.entry(service.clone()).or_default();
            *count_v4 += u32::from(*from_v4);
            *count_v6 += u32::from(*from_v6);
        }
        let networks = networks.into_iter().zip(translated);
        let services = services.into_iter().zip(shared);
        (
            networks
                .filter(|(network, before)| self.needs_nat46(network) != *before)
                .map(|(network, _)| network.clone())
                .collect(),
            services
                .filter(|(service, before)| self.shares_snat_pool(service) != *before)
                .map(|(service, _)| service.clone())
                .collect(),
        )
    }
}
