//! Operations on a small state: accepted requests, and the problems of refused ones.

mod host;
mod occupancy;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    Change, ConnectionState, Decision, HostAddresses, Identifiers, OpContext,
    endpoint::EndpointRequest, network::NetworkRequest, service::ServiceRequest,
    tenant::TenantRequest,
};

/// Counted identifiers, so that tests are deterministic.
#[derive(Default)]
pub(crate) struct Counted(u128);

impl Counted {
    /// Skips identifiers, which another counter has returned.
    pub(crate) const fn skip(&mut self, count: u128) {
        self.0 += count;
    }
}

impl Identifiers for Counted {
    fn bits(&mut self) -> u128 {
        self.0 += 1;
        self.0 << 96 | self.0 << 64 | self.0 << 32 | self.0
    }
}

/// State to which operations are applied as the agent does, without a store.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) state: State,
    identifiers: Counted,
    revision: u64,
    policy: Policy,
    pub(crate) host: HostAddresses,
    /// State before the last operation, and the changes of that operation.
    pub(crate) last: (State, Vec<Change>),
}

type Outcome = Result<(), Problem>;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn body<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value)
        .map_err(|error| Problem::new(ProblemCode::Malformed, error.to_string()))
}

impl World {
    pub(crate) fn run(
        &mut self,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) -> Outcome {
        let mut context = OpContext {
            now: Timestamp::UNIX_EPOCH,
            actor: "test",
            identifiers: &mut self.identifiers,
            host: &self.host,
        };
        let changes = operation(&self.state, &mut context, &self.policy)?;
        self.last = (self.state.clone(), changes.clone());
        self.revision += 1;
        self.state.apply(changes, self.revision);
        Ok(())
    }

    pub(crate) fn tenant(&mut self, name: &str) -> Outcome {
        let request: TenantRequest = body(json!({ "name": name }))?;
        self.run(|state, context, _| create_tenant(state, context, request))
    }

    pub(crate) fn network(&mut self, at: &str, interface: &str) -> Outcome {
        let Reference { tenant, name } = reference(at);
        let request: NetworkRequest =
            body(json!({ "name": name, "attachments": [{ "interface": interface }] }))?;
        self.run(|state, context, policy| create_network(state, context, policy, &tenant, request))
    }

    pub(crate) fn service(&mut self, at: &str, changes: Value) -> Outcome {
        let Reference { tenant, name } = reference(at);
        let request = service_request(Some(&name), changes)?;
        self.run(|state, context, policy| create_service(state, context, policy, &tenant, request))
    }

    pub(crate) fn endpoint(&mut self, at: &str, address: &str, service: &str) -> Outcome {
        self.endpoint_with(at, json!({ "addresses": [address], "service": service }))
    }

    pub(crate) fn endpoint_with(&mut self, at: &str, changes: Value) -> Outcome {
        let Reference { tenant, name } = reference(at);
        let mut value = json!({ "name": name, "network": "net" });
        value
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let request: EndpointRequest = body(value)?;
        self.run(|state, context, policy| create_endpoint(state, context, policy, &tenant, request))
    }

    pub(crate) fn decide(&mut self, service: &str, endpoint: &str, decision: Decision) -> Outcome {
        let link_id = self.state.endpoints[&reference(endpoint)]
            .object
            .connection
            .link_id;
        self.run(|state, context, _| {
            decide(
                state,
                context,
                &reference(service),
                link_id,
                decision,
                "said so".to_owned(),
            )
        })
    }

    fn connection(&self, endpoint: &str) -> ConnectionState {
        self.state.endpoints[&reference(endpoint)]
            .object
            .connection
            .state
    }

    /// Returns a world with a provider that has a service, and a consumer that has a network.
    pub(crate) fn furnished() -> Self {
        let mut world = Self::default();
        world.tenant("provider").unwrap();
        world.tenant("consumer").unwrap();
        world.network("provider/net", "veth-p").unwrap();
        world.network("consumer/net", "veth-c").unwrap();
        world.service("provider/shop", json!({})).unwrap();
        world
    }
}

/// Asserts that the outcome is a problem with this code and field, and that its detail contains the words.
#[track_caller]
fn refused(outcome: Outcome, code: ProblemCode, field: Option<&str>, words: &str) {
    let problem = outcome.expect_err("the operation succeeded");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (code, field),
        "{problem}"
    );
    assert!(problem.detail.contains(words), "{problem}");
}

#[test]
fn connection_lifecycle() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Pending);
    let mut generations = std::collections::HashSet::from([0]);
    for (decision, state) in [
        (Decision::Approve, ConnectionState::Approved),
        (Decision::Reject, ConnectionState::Rejected),
        (Decision::Approve, ConnectionState::Approved),
        (Decision::Remove, ConnectionState::Disconnected),
    ] {
        world
            .decide("provider/shop", "consumer/ep", decision)
            .unwrap();
        assert_eq!(world.connection("consumer/ep"), state);
        let generation = world.state.endpoints[&reference("consumer/ep")]
            .object
            .connection
            .generation;
        let approved = state == ConnectionState::Approved;
        assert_eq!(generation != 0, approved);
        assert!(
            !approved || generations.insert(generation),
            "a generation was used twice"
        );
    }
    refused(
        world.decide("provider/shop", "consumer/ep", Decision::Approve),
        ProblemCode::WrongState,
        None,
        "Disconnected is final",
    );
    world
        .run(|state, _, _| delete_endpoint(state, &reference("consumer/ep")))
        .unwrap();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    assert_eq!(world.connection("consumer/ep"), ConnectionState::Pending);
}

#[test]
fn auto_approval_and_denial() {
    let mut world = World::furnished();
    let nat = |range: &str| json!({ "auto_approval": ["consumer"], "nat_addresses": [range] });
    world.service("provider/auto", nat("10.1.1.0/28")).unwrap();
    world
        .endpoint("consumer/a", "10.0.0.101", "provider/auto")
        .unwrap();
    assert_eq!(world.connection("consumer/a"), ConnectionState::Approved);
    let mut denied = nat("10.1.2.0/28");
    denied["denied"] = json!(["consumer"]);
    world.service("provider/denied", denied).unwrap();
    refused(
        world.endpoint("consumer/b", "10.0.0.102", "provider/denied"),
        ProblemCode::NotFound,
        Some("service"),
        "there is no service provider/denied",
    );
}

#[test]
fn an_invisible_service_is_not_found() {
    let mut world = World::furnished();
    let hidden = json!({ "visibility": [], "nat_addresses": ["10.1.1.0/28"] });
    world.service("provider/hidden", hidden).unwrap();
    let alias = world.state.services[&reference("provider/hidden")]
        .object
        .alias
        .clone();
    let say = |world: &mut World, service: &str| {
        let outcome = world.endpoint("consumer/x", "10.0.0.103", service);
        outcome.unwrap_err().detail.replace(service, "IT")
    };
    let never = say(&mut world, "provider/never");
    assert_eq!(say(&mut world, "provider/hidden"), never);
    assert_eq!(say(&mut world, &alias), never);
    let shown = world.state.services[&reference("provider/shop")]
        .object
        .alias
        .clone();
    world.endpoint("consumer/x", "10.0.0.103", &shown).unwrap();
    assert!(
        !shown.contains("provider") && !shown.contains("net."),
        "{shown}"
    );
}

#[test]
fn invalid_endpoints_are_refused() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    let with = |changes: Value| {
        let mut value = json!({ "addresses": ["10.0.0.101"], "service": "provider/shop" });
        value
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        value
    };
    for (changes, code, field, words) in [
        (
            json!({ "addresses": ["10.0.0.100"] }),
            ProblemCode::InUse,
            "addresses[0]",
            "endpoint consumer/ep",
        ),
        (
            json!({ "addresses": [] }),
            ProblemCode::Invalid,
            "addresses",
            "needs an address",
        ),
        (
            json!({ "addresses": ["127.0.0.1"] }),
            ProblemCode::Invalid,
            "addresses[0]",
            "loopback",
        ),
        (
            json!({ "addresses": ["224.1.1.1"] }),
            ProblemCode::Invalid,
            "addresses[0]",
            "multicast",
        ),
        (
            json!({ "network": "nowhere" }),
            ProblemCode::Invalid,
            "network",
            "create it first",
        ),
        (
            json!({ "resource": "other" }),
            ProblemCode::Invalid,
            "resource",
            "offers no resource other",
        ),
        (
            json!({ "service": "a/b/c" }),
            ProblemCode::Invalid,
            "service",
            "TENANT/NAME",
        ),
        (
            json!({ "request_message": "a\nb" }),
            ProblemCode::Invalid,
            "request_message",
            "control",
        ),
    ] {
        refused(
            world.endpoint_with("consumer/new", with(changes)),
            code,
            Some(field),
            words,
        );
    }
    refused(
        world.endpoint("consumer/ep", "10.0.0.101", "provider/shop"),
        ProblemCode::AlreadyExists,
        Some("name"),
        "endpoint consumer/ep exists already",
    );
    refused(
        world.endpoint("nobody/ep", "10.0.0.101", "provider/shop"),
        ProblemCode::NotFound,
        None,
        "there is no tenant nobody",
    );
}

#[test]
fn invalid_services_are_refused() {
    let mut world = World::furnished();
    let resource = |ports: Value, backends: Value| json!({ "resources": [{ "ports": ports, "backends": backends }], "nat_addresses": ["10.1.1.0/28"] });
    let https = || json!([{ "port": 443 }]);
    for (changes, code, field, words) in [
        (
            json!({}),
            ProblemCode::InUse,
            "nat_addresses[0]",
            "source NAT addresses of service provider/shop",
        ),
        (
            json!({ "nat_addresses": [] }),
            ProblemCode::Invalid,
            "nat_addresses",
            "at least one",
        ),
        (
            json!({ "nat_addresses": ["10.1.0.10"] }),
            ProblemCode::Invalid,
            "nat_addresses[0]",
            "backend 10.1.0.10",
        ),
        (
            json!({ "nat_addresses": ["10.2.0.0/16"] }),
            ProblemCode::Invalid,
            "nat_addresses",
            "more than 1024",
        ),
        (
            json!({ "nat_addresses": ["10.1.1.0/28", "10.1.1.3"] }),
            ProblemCode::Invalid,
            "nat_addresses[1]",
            "overlaps",
        ),
        (
            json!({ "network": "nowhere" }),
            ProblemCode::Invalid,
            "network",
            "there is no network provider/nowhere",
        ),
        (
            json!({ "resources": [] }),
            ProblemCode::Invalid,
            "resources",
            "1 to 256",
        ),
        (
            resource(json!([]), json!([])),
            ProblemCode::Invalid,
            "resources[0].ports",
            "1 to 1024",
        ),
        (
            resource(json!([{ "port": 443 }, { "port": 443 }]), json!([])),
            ProblemCode::Invalid,
            "resources[0].ports[1]",
            "offered twice",
        ),
        (
            resource(json!([{ "port": "*", "backend_port": 1 }]), json!([])),
            ProblemCode::Invalid,
            "resources[0].ports[0].backend_port",
            "kept as it is",
        ),
        (
            resource(https(), json!([{ "address": "10.1.0.70" }])),
            ProblemCode::InUse,
            "resources[0].backends[0].address",
            "source NAT address of service provider/shop",
        ),
        (
            resource(https(), json!([{ "address": "10.1.0.9", "weight": 1001 }])),
            ProblemCode::Invalid,
            "resources[0].backends[0].weight",
            "at most 1000",
        ),
        (
            resource(
                https(),
                json!([{ "address": "10.1.0.9" }, { "address": "10.1.0.9" }]),
            ),
            ProblemCode::Invalid,
            "resources[0].backends[1].address",
            "twice",
        ),
        (
            json!({ "timeouts": { "udp": 1 } }),
            ProblemCode::Invalid,
            "timeouts.udp",
            "out of range",
        ),
    ] {
        let mut changes = changes;
        if changes.get("nat_addresses").is_none() && code == ProblemCode::Invalid {
            changes["nat_addresses"] = json!(["10.1.1.0/28"]);
        }
        refused(
            world.service("provider/new", changes),
            code,
            Some(field),
            words,
        );
    }
    for malformed in [
        json!({ "nonsense": 1 }),
        json!({ "visibility": ["*", "a"] }),
        json!({ "resources": [{ "ports": [{ "port": 0 }] }] }),
        json!({ "nat_addresses": ["10.1.1.1/28"] }),
    ] {
        assert_eq!(
            world.service("provider/new", malformed).unwrap_err().code,
            ProblemCode::Malformed
        );
    }
    assert_eq!(
        world.state.services.len(),
        1,
        "a refusal left something behind"
    );
}

#[test]
fn objects_in_use_can_not_be_deleted() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/ep", "10.0.0.100", "provider/shop")
        .unwrap();
    world
        .decide("provider/shop", "consumer/ep", Decision::Approve)
        .unwrap();
    let shop = reference("provider/shop");
    refused(
        world.run(|state, _, _| delete_tenant(state, &name("consumer"))),
        ProblemCode::HasDependents,
        None,
        "1 networks, 1 endpoints",
    );
    refused(
        world.run(|state, _, _| delete_network(state, &reference("consumer/net"))),
        ProblemCode::HasDependents,
        None,
        "used by endpoint consumer/ep",
    );
    refused(
        world.run(|state, context, _| delete_service(state, context, &shop, false)),
        ProblemCode::HasDependents,
        None,
        "1 approved connections",
    );
    world
        .run(|state, context, _| delete_service(state, context, &shop, true))
        .unwrap();
    assert_eq!(
        world.connection("consumer/ep"),
        ConnectionState::Disconnected
    );
    // A service of the same name is another one.
    world.service("provider/shop", json!({})).unwrap();
    refused(
        world.decide("provider/shop", "consumer/ep", Decision::Approve),
        ProblemCode::NotFound,
        None,
        "has no connection",
    );
}

#[test]
fn an_old_version_is_refused() {
    let mut world = World::furnished();
    let net = reference("consumer/net");
    let version = world.state.networks[&net].meta.version.public_value();
    let request = |version: u64| -> NetworkRequest {
        body(json!({ "version": version, "attachments": [{ "interface": "veth-d" }] })).unwrap()
    };
    refused(
        world.run(|state, context, _| update_network(state, context, &net, request(version ^ 1))),
        ProblemCode::VersionConflict,
        Some("version"),
        "read it again",
    );
    world
        .run(|state, context, _| update_network(state, context, &net, request(version)))
        .unwrap();
    assert_eq!(world.state.network_by_interface("veth-c"), None);
    assert_eq!(world.state.network_by_interface("veth-d"), Some(&net));
    refused(
        world.network("consumer/other", "veth-p"),
        ProblemCode::InUse,
        Some("attachments[0].interface"),
        "attached to another network",
    );
}

#[test]
fn an_endpoint_beyond_the_quota_is_refused() {
    let mut world = World::furnished();
    let request: TenantRequest = body(json!({ "quotas": { "endpoints": 1 } })).unwrap();
    world
        .run(|state, context, _| update_tenant(state, context, &name("consumer"), request))
        .unwrap();
    world
        .endpoint("consumer/a", "10.0.0.101", "provider/shop")
        .unwrap();
    refused(
        world.endpoint("consumer/b", "10.0.0.102", "provider/shop"),
        ProblemCode::LimitReached,
        None,
        "1 endpoints of the 1",
    );
}

#[test]
fn slots_are_reused_and_records_round_trip_through_the_store_encoding() {
    let mut world = World::furnished();
    for (endpoint, address) in [
        ("a", "10.0.0.101"),
        ("b", "10.0.0.102"),
        ("c", "10.0.0.103"),
    ] {
        world
            .endpoint(&format!("consumer/{endpoint}"), address, "provider/shop")
            .unwrap();
    }
    assert_eq!(world.state.free_slot(), 3);
    world
        .run(|state, _, _| delete_endpoint(state, &reference("consumer/b")))
        .unwrap();
    assert_eq!(world.state.free_slot(), 1);
    let record = world.state.endpoints[&reference("consumer/a")].clone();
    let version = record.meta.version;
    let object = crate::model::Object::Endpoint(name("consumer"), record);
    let text = object.encode().unwrap();
    let decoded = crate::model::Object::decode(&object.key(), &text, version.revision());
    let mut decoded = decoded.unwrap();
    decoded.meta_mut().version = version;
    assert_eq!(decoded, object);
}

impl World {
    pub(crate) fn decide_if_there(
        &mut self,
        service: &str,
        endpoint: &str,
        decision: Decision,
    ) -> Outcome {
        if self.state.endpoints.contains_key(&reference(endpoint)) {
            self.decide(service, endpoint, decision)
        } else {
            Ok(())
        }
    }

    pub(crate) fn delete_endpoint(&mut self, at: &str) -> Outcome {
        self.run(|state, _, _| delete_endpoint(state, &reference(at)))
    }

    pub(crate) fn delete_service(&mut self, at: &str) -> Outcome {
        self.run(|state, context, _| delete_service(state, context, &reference(at), true))
    }

    /// Replaces the fields of a network.
    fn update_network(&mut self, at: &str, interface: &str, changes: Value) -> Outcome {
        let mut value = json!({ "attachments": [{ "interface": interface }] });
        value
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let request: NetworkRequest = body(value)?;
        self.run(|state, context, _| update_network(state, context, &reference(at), request))
    }

    pub(crate) fn replace_service(&mut self, at: &str, changes: Value) -> Outcome {
        let request = service_request(None, changes)?;
        self.run(|state, context, _| update_service(state, context, &reference(at), request))
    }
}

/// Returns a valid request for a service, with changes.
fn service_request(name: Option<&Name>, changes: Value) -> Result<ServiceRequest, Problem> {
    let mut value = json!({
        "network": "net",
        "resources": [{ "ports": [{ "port": 443 }], "backends": [{ "address": "10.1.0.10" }] }],
        "nat_addresses": ["10.1.0.64/28"],
        "visibility": ["*"],
    });
    if let Some(name) = name {
        value["name"] = json!(name);
    }
    value
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    body(value)
}

/// Replaces the fields of the consumer's network.
fn update_consumer_network(world: &mut World, fields: Value) -> Outcome {
    let mut value = json!({ "attachments": [{ "interface": "veth-c" }] });
    let map = value.as_object_mut().unwrap();
    map.extend(fields.as_object().unwrap().clone());
    let request: NetworkRequest = body(value)?;
    let network = reference("consumer/net");
    world.run(|state, context, _| update_network(state, context, &network, request))
}

#[test]
fn an_endpoint_without_an_address_gets_a_free_one_of_each_family_of_the_pool() {
    let mut world = World::furnished();
    let without = json!({ "service": "provider/shop" });
    let refusal = world
        .endpoint_with("consumer/x", without.clone())
        .unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("addresses"));
    assert!(refusal.detail.contains("has no address pool"), "{refusal}");
    update_consumer_network(
        &mut world,
        json!({
            "prefixes": ["10.0.0.0/24", "fd00::/64"],
            "routers": ["10.0.0.251"],
            // The network address, a router and the broadcast address are skipped.
            "pool": ["10.0.0.0-10.0.0.1", "10.0.0.250-10.0.0.255", "fd00::10-fd00::20"],
        }),
    )
    .unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..5 {
        let at = format!("consumer/x{number}");
        world.endpoint_with(&at, without.clone()).unwrap();
        let endpoint = &world.state.endpoints[&reference(&at)].object;
        assert_eq!(endpoint.addresses.len(), 2);
        assert!(endpoint.addresses[0].is_ipv4() && endpoint.addresses[1].is_ipv6());
        seen.extend(endpoint.addresses.clone());
    }
    let v4: Vec<String> = seen
        .iter()
        .filter(|address| address.is_ipv4())
        .map(ToString::to_string)
        .collect();
    let expected = [
        "10.0.0.1",
        "10.0.0.250",
        "10.0.0.252",
        "10.0.0.253",
        "10.0.0.254",
    ];
    assert_eq!(v4, expected);
}

#[test]
fn an_exhausted_pool_is_reported_and_a_released_address_is_reused() {
    let mut world = World::furnished();
    update_consumer_network(&mut world, json!({ "pool": ["10.0.0.8/30"] })).unwrap();
    let without = json!({ "service": "provider/shop" });
    let mut had = Vec::new();
    for number in 0..4 {
        let at = format!("consumer/x{number}");
        world.endpoint_with(&at, without.clone()).unwrap();
        had.push(
            world.state.endpoints[&reference(&at)]
                .object
                .addresses
                .clone(),
        );
    }
    let refusal = world
        .endpoint_with("consumer/y", without.clone())
        .unwrap_err();
    assert_eq!(refusal.code, ProblemCode::LimitReached);
    assert!(refusal.detail.contains("no free IPv4 address"), "{refusal}");
    world
        .run(|state, _, _| delete_endpoint(state, &reference("consumer/x2")))
        .unwrap();
    world.endpoint_with("consumer/y", without).unwrap();
    assert_eq!(
        world.state.endpoints[&reference("consumer/y")]
            .object
            .addresses,
        had[2]
    );
}

#[test]
fn addresses_that_no_host_of_the_network_can_have_are_refused() {
    let mut world = World::furnished();
    let fields = json!({ "prefixes": ["10.0.0.0/24"], "routers": ["10.0.0.1"] });
    update_consumer_network(&mut world, fields).unwrap();
    for (address, says) in [
        ("10.0.0.1", "is a router of the network"),
        ("10.0.0.0", "the address of the network itself"),
        ("10.0.0.255", "the broadcast address"),
        ("10.0.1.5", "in none of the network's prefixes"),
        ("224.0.0.5", "a multicast address"),
    ] {
        let refusal = world
            .endpoint("consumer/x", address, "provider/shop")
            .unwrap_err();
        assert!(refusal.detail.contains(says), "{address}: {refusal}");
        assert_eq!(refusal.field.as_deref(), Some("addresses[0]"));
    }
    world
        .endpoint("consumer/x", "10.0.0.9", "provider/shop")
        .unwrap();
    for (fields, says) in [
        (
            json!({ "prefixes": ["10.9.0.0/24"] }),
            "endpoint consumer/x could not stay",
        ),
        (
            json!({ "routers": ["10.0.0.9"] }),
            "is a router of the network",
        ),
        (json!({ "prefixes": ["10.0.0.1/24"] }), "10.0.0.0/24"),
        (json!({ "routers": ["224.0.0.1"] }), "multicast"),
        (
            json!({ "prefixes": ["10.0.0.0/24"], "pool": ["10.0.1.0/30"] }),
            "in none",
        ),
    ] {
        let refusal = update_consumer_network(&mut world, fields.clone()).unwrap_err();
        assert!(refusal.detail.contains(says), "{fields}: {refusal}");
    }
}

#[test]
fn creating_an_identical_object_changes_nothing() {
    let mut world = World::furnished();
    world
        .endpoint("consumer/x", "10.0.0.9", "provider/shop")
        .unwrap();
    let before = world.revision;
    let state = format!("{:?}", world.state);
    world.tenant("consumer").unwrap();
    world.network("consumer/net", "veth-c").unwrap();
    world.service("provider/shop", json!({})).unwrap();
    world
        .endpoint("consumer/x", "10.0.0.9", "provider/shop")
        .unwrap();
    assert_eq!(format!("{:?}", world.state), state);
    assert!(world.revision > before);
    for refusal in [
        world.network("consumer/net", "other"),
        world.service("provider/shop", json!({ "max_connections_per_tenant": 1 })),
        world.endpoint("consumer/x", "10.0.0.10", "provider/shop"),
    ] {
        assert_eq!(refusal.unwrap_err().code, ProblemCode::AlreadyExists);
    }
}
