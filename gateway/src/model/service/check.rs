//! Checks of a service's settings that do not depend on other objects.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use crate::model::{
    Problem,
    address::{AddressRange, check_hosts},
    limits,
    service::{MAX_NAT_ADDRESSES, MAX_RESOURCES, Resource, ServiceSpec, service_size},
};

impl ServiceSpec {
    /// Checks the fields that do not depend on other objects.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.resources.is_empty() || self.resources.len() > MAX_RESOURCES {
            return Err(Problem::invalid(
                "resources",
                format!("a service has 1 to {MAX_RESOURCES} resources"),
            ));
        }
        let mut names = HashSet::new();
        for (index, resource) in self.resources.iter().enumerate() {
            let field = format!("resources[{index}]");
            if !names.insert(&resource.name) {
                return Err(Problem::invalid(
                    format!("{field}.name"),
                    format!("resource {} is named twice", resource.name),
                ));
            }
            resource.check(&field)?;
        }
        self.check_nat_addresses()?;
        self.timeouts.check()?;
        self.limits().check()?;
        self.health_check.check()
    }

    /// Refuses lists that are too long. Requests must pass this check before [`Self::check`], which compares entries
    /// of lists with one another. Stored services are not checked for size, since the store of an earlier program may
    /// have larger ones.
    pub(crate) fn check_size(&self) -> Result<(), Problem> {
        for (field, set) in [
            ("visibility", &self.visibility),
            ("auto_approval", &self.auto_approval),
            ("denied", &self.denied),
        ] {
            if set.len() > limits::MAX_TENANTS {
                let detail = format!("{field} names at most {} tenants", limits::MAX_TENANTS);
                return Err(Problem::invalid(field, detail));
            }
        }
        let max = usize::try_from(MAX_NAT_ADDRESSES).unwrap_or(usize::MAX);
        if self.nat_addresses.len() > max {
            let detail = format!("a service has at most {max} source NAT addresses");
            return Err(Problem::invalid("nat_addresses", detail));
        }
        let weight = service_size(self);
        if weight > limits::MAX_SERVICE_BYTES {
            let detail = format!(
                "resources and lists of tenants take about {weight} bytes together: use at most {}, \
                 or create several services",
                limits::MAX_SERVICE_BYTES
            );
            return Err(Problem::invalid("resources", detail));
        }
        Ok(())
    }

    /// Refuses a health check that has no effect on a resource, since it would have no port to probe. A resource to which
    /// this applied before the change is not refused again: an earlier program accepted it.
    pub(crate) fn check_probe_ports(&self, old: Option<&Self>) -> Result<(), Problem> {
        let ineffective =
            |spec: &Self, resource: &Resource| spec.health_check.ineffective_for(resource);
        for resource in &self.resources {
            let Some(reason) = ineffective(self, resource) else {
                continue;
            };
            let applied_before = old.is_some_and(|old| {
                old.health_check.check == self.health_check.check
                    && old
                        .resource(&resource.name)
                        .is_some_and(|before| ineffective(old, before).is_some())
            });
            if !applied_before {
                return Err(Problem::invalid("health_check.port", reason));
            }
        }
        Ok(())
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
        if count > MAX_NAT_ADDRESSES {
            return Err(Problem::invalid(
                "nat_addresses",
                format!("{count} source NAT addresses are more than {MAX_NAT_ADDRESSES}"),
            ));
        }
        let backends = self.resources.iter().flat_map(|r| &r.backends);
        let backends: BTreeSet<IpAddr> = backends.map(|backend| backend.address).collect();
        // Keyed by the last address. An overlapping range is the first one that ends at or after the start of this one.
        let mut ranges: BTreeMap<IpAddr, AddressRange> = BTreeMap::new();
        for (index, range) in self.nat_addresses.iter().enumerate() {
            let field = format!("nat_addresses[{index}]");
            check_hosts(&field, *range)?;
            let (first, last) = range.ends();
            let next = ranges.range(first..).next();
            if let Some((_, other)) = next.filter(|(_, other)| other.overlaps(*range)) {
                return Err(Problem::invalid(field, format!("{range} overlaps {other}")));
            }
            if let Some(backend) = backends.range(first..=last).next() {
                let detail = format!("{range} holds the backend {backend}");
                return Err(Problem::invalid(field, detail));
            }
            ranges.insert(last, *range);
        }
        let has_source = [false, true].map(|v4| {
            let mut ranges = self.nat_addresses.iter();
            ranges.any(|range| range.ends().0.is_ipv4() == v4)
        });
        for (r, resource) in self.resources.iter().enumerate() {
            for (b, backend) in resource.backends.iter().enumerate() {
                if !has_source[usize::from(backend.address.is_ipv4())] {
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
