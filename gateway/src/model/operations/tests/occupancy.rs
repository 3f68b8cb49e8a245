//! Index of addresses in use: comparison with scans, and bounds on the cost of operations in large networks.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use serde_json::{Value, json};

use super::{World, reference, refused, service_request, update_consumer_network};
use crate::model::{
    Change, Object, ProblemCode, Reference, State,
    address::AddressRange,
    occupancy::visits,
    operations::update_service,
    service::{Backend, Resource, ServiceSpec},
};

/// Pseudo-random numbers from a fixed seed (SplitMix64), so that each run makes the same changes.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u8) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((number ^ number >> 31) % u64::from(end)).unwrap()
    }
}

/// Size of the address space of the random changes. It is small, so that many of them conflict.
const SPACE: u8 = 60;

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, number).into()
}

fn range(first: u8, last: u8) -> AddressRange {
    let (first, last) = (address(first), address(last));
    format!("{first}-{last}").parse().unwrap()
}

fn backends(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> {
    let backends = spec.resources.iter().flat_map(|r| &r.backends);
    backends.map(|backend| backend.address)
}

/// Compares the index of the network with scans of all objects, for every address and many ranges.
fn check_against_scans(state: &State, network: &Reference) {
    let index = state.occupancy(network);
    let services = || state.services_of_network(network);
    let endpoints: BTreeSet<(IpAddr, &Reference)> = state.addresses_of_network(network).collect();
    for first in 0..SPACE {
        for last in [first, (first + 7).min(SPACE), SPACE] {
            let range = range(first, last);
            let endpoint = endpoints
                .iter()
                .find(|(existing, _)| range.contains(*existing));
            assert_eq!(index.endpoint_in(range), endpoint.copied());
            let in_range = services().flat_map(|(service, record)| {
                let backends = backends(&record.object.spec);
                backends.map(move |backend| (backend, service))
            });
            let in_range: BTreeSet<_> = in_range.filter(|(at, _)| range.contains(*at)).collect();
            assert_eq!(
                index.backends_in(range).collect::<Vec<_>>(),
                Vec::from_iter(in_range)
            );
            let overlapping = services().flat_map(|(service, record)| {
                let ranges = record.object.spec.nat_addresses.iter();
                ranges.map(move |range| (*range, service))
            });
            let overlapping: BTreeSet<_> = overlapping
                .filter(|(other, _)| other.overlaps(range))
                .collect();
            assert_eq!(
                index.nat_ranges_in(range).collect::<BTreeSet<_>>(),
                overlapping
            );
        }
        let one = address(first);
        let endpoint = endpoints.iter().find(|(there, _)| *there == one);
        assert_eq!(
            index.endpoint_at(one),
            endpoint.map(|(_, endpoint)| *endpoint)
        );
        let mut ranges = services().flat_map(|(service, record)| {
            let ranges = record.object.spec.nat_addresses.iter();
            ranges.map(move |range| (*range, service))
        });
        let holder = ranges.find(|(range, _)| range.contains(one));
        assert_eq!(index.nat_range_at(one), holder);
    }
}

/// Returns true if another object of the network uses an address that the specification needs.
fn conflicts(state: &State, service: &Reference, spec: &ServiceSpec) -> bool {
    let network = Reference::new(service.tenant.clone(), spec.network.clone());
    let endpoint = state.addresses_of_network(&network).any(|(address, _)| {
        let mut ranges = spec.nat_addresses.iter();
        ranges.any(|range| range.contains(address)) || backends(spec).any(|own| own == address)
    });
    let mut others = state
        .services_of_network(&network)
        .filter(|(other, _)| *other != service)
        .map(|(_, record)| &record.object.spec);
    endpoint
        || others.any(|other| {
            let ranges = || other.nat_addresses.iter();
            spec.nat_addresses.iter().any(|range| {
                ranges().any(|nat_range| nat_range.overlaps(*range))
                    || backends(other).any(|backend| range.contains(backend))
            }) || backends(spec).any(|own| ranges().any(|theirs| theirs.contains(own)))
        })
}

/// Returns true if an object of the network uses the address.
fn is_taken(state: &State, network: &Reference, wanted_address: IpAddr) -> bool {
    let mut services = state.services_of_network(network);
    let mut endpoints = state.addresses_of_network(network);
    endpoints.any(|(address, _)| address == wanted_address)
        || services.any(|(_, record)| {
            let spec = &record.object.spec;
            let mut ranges = spec.nat_addresses.iter();
            ranges.any(|range| range.contains(wanted_address))
                || backends(spec).any(|own| own == wanted_address)
        })
}

fn random_service(numbers: &mut Numbers) -> Value {
    let ranges = (0..=numbers.below(2)).map(|_| {
        let first = numbers.below(SPACE);
        let last = (first + numbers.below(4)).min(SPACE);
        range(first, last).to_string()
    });
    let ranges: Vec<String> = ranges.collect();
    let resource = |name: &str, numbers: &mut Numbers| {
        let backends: BTreeSet<IpAddr> = (0..numbers.below(3))
            .map(|_| address(numbers.below(SPACE)))
            .collect();
        let backends: Vec<Value> = backends
            .iter()
            .map(|address| json!({ "address": address }))
            .collect();
        json!({ "name": name, "ports": [{ "port": 443 }], "backends": backends })
    };
    json!({
        "nat_addresses": ranges,
        "resources": [resource("one", numbers), resource("two", numbers)],
        "visibility": ["*"],
    })
}

#[test]
fn the_address_index_equals_scans_after_random_changes() {
    let mut world = World::default();
    world.tenant("provider").unwrap();
    world.network("provider/net", "veth-p").unwrap();
    let network = reference("provider/net");
    let mut numbers = Numbers(1);
    let (mut accepted, mut in_use) = (0, 0);
    for _ in 0..600 {
        let at = format!("provider/s{}", numbers.below(6));
        let endpoint = format!("provider/e{}", numbers.below(8));
        let service = reference(&at);
        match numbers.below(8) {
            0 => drop(world.delete_service(&at)),
            1 => drop(world.delete_endpoint(&endpoint)),
            2 | 3 => {
                let wanted = address(numbers.below(SPACE));
                let spec = json!({ "addresses": [wanted], "service": at, "resource": "one" });
                let is_new = !world.state.endpoints.contains_key(&reference(&endpoint));
                if is_new && world.state.services.contains_key(&service) {
                    let taken = is_taken(&world.state, &network, wanted);
                    let outcome = world.endpoint_with(&endpoint, spec);
                    assert_eq!(outcome.is_err(), taken, "{outcome:?}");
                }
            }
            _ => {
                let changes = random_service(&mut numbers);
                let request = service_request(None, changes.clone()).unwrap();
                let conflict = conflicts(&world.state, &service, &request.spec);
                let outcome = if world.state.services.contains_key(&service) {
                    world.replace_service(&at, changes)
                } else {
                    world.service(&at, changes)
                };
                match outcome {
                    Ok(()) => {
                        assert!(!conflict, "{at}: {:?}", request.spec);
                        accepted += 1;
                    }
                    Err(problem) if problem.code == ProblemCode::InUse => {
                        assert!(conflict, "{problem}");
                        in_use += 1;
                    }
                    // The ranges and backends of the service itself overlap.
                    Err(problem) => assert_eq!(problem.code, ProblemCode::Invalid, "{problem}"),
                }
            }
        }
        check_against_scans(&world.state, &network);
    }
    assert!(accepted > 50 && in_use > 50, "{accepted} {in_use}");
    for number in 0..6 {
        drop(world.delete_service(&format!("provider/s{number}")));
    }
    for number in 0..8 {
        drop(world.delete_endpoint(&format!("provider/e{number}")));
    }
    assert!(world.state.occupancy(&network).is_empty());
}

/// Adds a service with these addresses, otherwise a copy of the template.
fn add_service(
    world: &mut World,
    template: &str,
    name: &str,
    nat: impl Iterator<Item = u32>,
    backends: impl Iterator<Item = u32>,
) {
    let template = reference(template);
    let mut record = world.state.services[&template].clone();
    record.meta.name = name.parse().unwrap();
    let service = &mut record.object;
    service.alias = format!("{name}.alias");
    let address = |bits: u32| IpAddr::from(Ipv4Addr::from_bits(bits));
    let ranges = nat.map(|bits| AddressRange::one(address(bits)));
    service.spec.nat_addresses = ranges.collect();
    let resource = service.spec.resources[0].clone();
    let backends: Vec<Backend> = backends
        .map(|bits| Backend {
            address: address(bits),
            weight: 1,
            drain: false,
            drain_deadline: None,
        })
        .collect();
    let resources = backends.chunks(250).enumerate().map(|(number, backends)| {
        let mut resource: Resource = resource.clone();
        resource.name = format!("r{number}").parse().unwrap();
        resource.backends = backends.to_vec();
        resource
    });
    service.spec.resources = resources.collect();
    let change = Change::Put(Object::Service(template.tenant, record));
    world.revision += 1;
    world.state.apply(vec![change], world.revision);
}

#[test]
fn an_update_of_a_service_visits_a_bounded_number_of_entries_in_a_large_network() {
    const RANGES: u32 = 1_024;
    const BACKENDS: u32 = 1_600;
    let mut world = World::furnished();
    let (nat, servers) = (0x0b00_0000, 0x0c00_0000);
    for number in 0..100 {
        let name = format!("large{number}");
        // The ranges of the services alternate, so that ranges of other services surround each.
        let ranges = (0..RANGES).map(|range| nat + range * 100 + number);
        let backends = (0..BACKENDS).map(|backend| servers + backend * 100 + number);
        add_service(&mut world, "provider/shop", &name, ranges, backends);
    }
    let service = reference("provider/large50");
    let mut request = service_request(None, json!({})).unwrap();
    request.spec = world.state.services[&service].object.spec.clone();
    // All ranges move, and ranges of other services still surround each.
    request.spec.nat_addresses = (0..RANGES)
        .map(|range| AddressRange::one(Ipv4Addr::from_bits(nat + (range + RANGES) * 100).into()))
        .collect();
    let spec = request.spec.clone();
    let (outcome, visits) = visits::during(|| {
        world.run(|state, context, _| update_service(state, context, &service, request))
    });
    outcome.unwrap();
    let max_visits = u64::from(4 * (RANGES + BACKENDS));
    assert!(
        visits > 0 && visits <= max_visits,
        "{visits} of {max_visits}"
    );
    assert_eq!(world.state.services[&service].object.spec, spec);

    let mut request = service_request(None, json!({})).unwrap();
    request.spec = spec;
    let last = Ipv4Addr::from_bits(nat + 51);
    request.spec.nat_addresses[1_023] = AddressRange::one(last.into());
    let (outcome, visits) = visits::during(|| {
        world.run(|state, context, _| update_service(state, context, &service, request))
    });
    refused(
        outcome,
        ProblemCode::InUse,
        Some("nat_addresses[1023]"),
        "source NAT addresses of service provider/large51",
    );
    assert!(visits <= max_visits, "{visits} of {max_visits}");
}

#[test]
fn an_allocation_tries_a_bounded_number_of_addresses() {
    let mut world = World::furnished();
    let first = 0x0b00_0000;
    let net = json!({ "nat_addresses": ["10.9.0.1"] });
    world.service("consumer/own", net).unwrap();
    for number in 0..40 {
        let backends = (0..2_000).map(|backend| first + number * 2_000 + backend);
        let nat = [0x0c00_0000 + number].into_iter();
        add_service(
            &mut world,
            "consumer/own",
            &format!("s{number}"),
            nat,
            backends,
        );
    }
    let last = Ipv4Addr::from_bits(first + 79_999);
    update_consumer_network(&mut world, json!({ "pool": [format!("11.0.0.0-{last}")] })).unwrap();
    let without = json!({ "service": "provider/shop" });
    let (outcome, visits) = visits::during(|| world.endpoint_with("consumer/x", without.clone()));
    refused(
        outcome,
        ProblemCode::LimitReached,
        Some("addresses"),
        "no free IPv4 address among the 65536 that were tried",
    );
    assert!((65_536..=5 * 65_536).contains(&visits), "{visits}");
}

#[test]
fn an_allocation_skips_a_source_nat_range_in_one_step() {
    let mut world = World::furnished();
    let net = json!({ "nat_addresses": ["10.9.0.0-10.9.1.255", "10.9.2.1-10.9.2.255"] });
    world.service("consumer/own", net).unwrap();
    let pool = json!({ "pool": ["10.9.0.128-10.9.2.100"] });
    update_consumer_network(&mut world, pool).unwrap();
    // The start of the search depends on the endpoint's name.
    for number in 0..20 {
        let at = format!("consumer/x{number}");
        let without = json!({ "service": "provider/shop" });
        let (outcome, visits) = visits::during(|| world.endpoint_with(&at, without));
        outcome.unwrap();
        let expected: IpAddr = "10.9.2.0".parse().unwrap();
        let found = &world.state.endpoints[&reference(&at)].object.addresses;
        assert_eq!(found, &[expected]);
        assert!(visits <= 16, "{visits}");
        world.delete_endpoint(&at).unwrap();
    }
    world
        .endpoint("consumer/x", "10.9.2.0", "provider/shop")
        .unwrap();
    let without = json!({ "service": "provider/shop" });
    let problem = world.endpoint_with("consumer/y", without).unwrap_err();
    let detail = "the pool of network consumer/net has no free IPv4 address";
    assert_eq!(problem.detail, detail);
}
