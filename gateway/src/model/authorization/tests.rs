//! Random callers make random sequences of single calls and manifests. Each successful step must be allowed by the
//! table of roles, which the tests check from the states before and after the step alone.

use std::{collections::BTreeMap, ops::Range};

use jiff::Timestamp;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::*;
use crate::model::{
    Access, Decision, HostAddresses, OpContext, Reference, Role,
    endpoint::EndpointRequest,
    manifest::{ConnectionEntry, Manifest, ManifestEntry},
    operations::{
        ApplyOptions, Policy, apply, create_endpoint, create_service, decide, delete_endpoint,
        delete_service,
        tests::{Counted, World},
        update_endpoint, update_service,
    },
    record::Labels,
    service::{ServiceRequest, TenantSet},
};

/// Two providers and two consumers.
const TENANTS: [&str; 4] = ["p", "q", "c", "d"];
const SERVICES: [&str; 4] = ["p/open", "p/auto", "q/open", "q/new"];
const ENDPOINTS: [&str; 6] = ["c/e1", "c/e2", "c/new", "d/e1", "d/new", "p/own"];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Returns a world with connections in several states, to services with and without automatic approval.
fn world() -> World {
    let mut world = World::default();
    for tenant in TENANTS {
        world.tenant(tenant).unwrap();
        let network = format!("{tenant}/net");
        world.network(&network, &format!("veth-{tenant}")).unwrap();
    }
    let json = |auto: &[&str], nat: &str| serde_json::json!({ "auto_approval": auto, "nat_addresses": [nat] });
    world.service("p/open", json(&[], "10.1.0.64/28")).unwrap();
    world
        .service("p/auto", json(&["c"], "10.1.0.96/28"))
        .unwrap();
    world.service("q/open", json(&[], "10.1.0.64/28")).unwrap();
    world.endpoint("c/e1", "10.0.0.101", "p/open").unwrap();
    world.endpoint("c/e2", "10.0.0.102", "q/open").unwrap();
    world.endpoint("d/e1", "10.0.0.101", "p/open").unwrap();
    world.decide("q/open", "c/e2", Decision::Approve).unwrap();
    world.decide("p/open", "d/e1", Decision::Reject).unwrap();
    world
}

/// Call: a request of its own, or a part of a manifest.
#[derive(Clone, Copy, Debug)]
enum Call {
    CreateEndpoint(usize, usize),
    LabelEndpoint(usize, u8),
    DeleteEndpoint(usize),
    Decide(usize, ConnectionState),
    /// Creates or changes a service: its index, its automatic approval, a label.
    Service(usize, u8, u8),
    DeleteService(usize),
}

#[derive(Clone, Debug)]
struct Step {
    caller: u16,
    calls: Vec<Call>,
    manifest: bool,
    options: ApplyOptions,
}

fn index(of: usize) -> Range<usize> {
    0..of
}

fn call() -> impl Strategy<Value = Call> {
    use ConnectionState::{Approved, Disconnected, Pending, Rejected};
    let states = [Pending, Approved, Approved, Rejected, Disconnected];
    let endpoint = || index(ENDPOINTS.len());
    let service = || index(SERVICES.len());
    prop_oneof![
        3 => (endpoint(), service()).prop_map(|(e, s)| Call::CreateEndpoint(e, s)),
        1 => (endpoint(), 0u8..3).prop_map(|(e, l)| Call::LabelEndpoint(e, l)),
        1 => endpoint().prop_map(Call::DeleteEndpoint),
        4 => (endpoint(), index(states.len())).prop_map(move |(e, s)| Call::Decide(e, states[s])),
        2 => (service(), 0u8..3, 0u8..3).prop_map(|(s, a, l)| Call::Service(s, a, l)),
        1 => service().prop_map(Call::DeleteService),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let flags = (any::<bool>(), prop::bool::weighted(0.1), any::<bool>());
    (any::<u16>(), vec(call(), 1..4), flags).prop_map(
        |(caller, calls, (manifest, prune, force))| Step {
            caller,
            calls,
            manifest,
            options: ApplyOptions { prune, force },
        },
    )
}

/// Returns a caller with a role or none in each tenant. One of 32 callers is the operator.
fn caller(bits: u16) -> Principal {
    if bits >> 11 == 0 {
        return Principal::operator("operator", "socket");
    }
    let roles: BTreeMap<Name, Role> = TENANTS
        .iter()
        .enumerate()
        .filter_map(|(position, tenant)| {
            let role = match bits >> (position * 3) & 7 {
                0 => Role::Viewer,
                1 => Role::Consumer,
                2 => Role::Provider,
                3 => Role::Admin,
                _ => return None,
            };
            Some((name(tenant), role))
        })
        .collect();
    Principal {
        identity: "token 1".to_owned(),
        name: "somebody".to_owned(),
        from: "192.0.2.1".to_owned(),
        access: Access::Tenants(roles),
    }
}

fn endpoint_request(endpoint: usize, service: &str, labels: Option<Labels>) -> EndpointRequest {
    EndpointRequest {
        name: Some(reference(ENDPOINTS[endpoint]).name),
        version: None,
        labels,
        network: name("net"),
        addresses: vec![[10, 0, 0, 110 + u8::try_from(endpoint).unwrap()].into()],
        service: service.to_owned(),
        resource: None,
        request_message: String::new(),
    }
}

fn labels(number: u8) -> Labels {
    [("l".to_owned(), number.to_string())].into()
}

/// Returns the request that only changes the labels.
fn label_request(old: &Record<Endpoint>, label: u8) -> EndpointRequest {
    EndpointRequest {
        name: Some(old.meta.name.clone()),
        version: None,
        labels: Some(labels(label)),
        network: old.object.network.clone(),
        addresses: old.object.addresses.clone(),
        service: old.object.service.clone(),
        resource: Some(old.object.resource.clone()),
        request_message: String::new(),
    }
}

fn service_request(state: &State, service: usize, auto: u8, label: u8) -> ServiceRequest {
    let at = reference(SERVICES[service]);
    let old = state.services.get(&at);
    let mut spec = match old {
        Some(old) => old.object.spec.clone(),
        None => serde_json::from_value(serde_json::json!({
            "network": "net",
            "resources": [{ "ports": [{ "port": 443 }], "backends": [{ "address": "10.1.0.10" }] }],
            "nat_addresses": [format!("10.1.{}.0/28", 10 + service)],
            "visibility": ["*"],
        }))
        .unwrap(),
    };
    spec.auto_approval = match auto {
        0 => TenantSet::None,
        1 => TenantSet::Some([name("d")].into()),
        _ => TenantSet::Every,
    };
    ServiceRequest {
        name: Some(at.name),
        version: None,
        labels: Some(labels(label)),
        spec,
    }
}

struct Run {
    state: State,
    revision: u64,
    identifiers: Counted,
    policy: Policy,
}

impl Run {
    /// Runs the step as the agent does: the route's permission, the operation, the authorization of its changes.
    fn carry_out(&mut self, step: &Step, principal: &Principal) -> Result<Vec<Change>, Problem> {
        let mut context = OpContext {
            now: Timestamp::UNIX_EPOCH,
            actor: "somebody",
            identifiers: &mut self.identifiers,
            host: &HostAddresses::default(),
        };
        let (state, policy) = (&self.state, &self.policy);
        let changes = if step.manifest {
            let manifest = manifest(state, &step.calls);
            apply(
                state,
                &mut context,
                policy,
                principal,
                &manifest,
                step.options,
            )?
            .0
        } else {
            let call = step.calls[0];
            let (tenant, permission) = route(state, call);
            principal.require(&tenant, permission)?;
            operation(state, &mut context, policy, call)?
        };
        authorize(state, &changes, principal)?;
        Ok(changes)
    }
}

/// Returns what the call's route demands: the tenant in its path and the permission there.
fn route(state: &State, call: Call) -> (Name, Permission) {
    match call {
        Call::CreateEndpoint(e, _) | Call::LabelEndpoint(e, _) | Call::DeleteEndpoint(e) => {
            (reference(ENDPOINTS[e]).tenant, Permission::Endpoints)
        }
        Call::Decide(e, _) => {
            let found = state.endpoints.get(&reference(ENDPOINTS[e]));
            let provider = found.map(|e| e.object.service_identity.reference.tenant.clone());
            (provider.unwrap_or_else(|| name("p")), Permission::Decisions)
        }
        Call::Service(s, ..) | Call::DeleteService(s) => {
            (reference(SERVICES[s]).tenant, Permission::Services)
        }
    }
}

fn operation(
    state: &State,
    context: &mut OpContext<'_>,
    policy: &Policy,
    call: Call,
) -> Result<Vec<Change>, Problem> {
    match call {
        Call::CreateEndpoint(e, s) => {
            let request = endpoint_request(e, SERVICES[s], None);
            create_endpoint(
                state,
                context,
                policy,
                &reference(ENDPOINTS[e]).tenant,
                request,
            )
        }
        Call::LabelEndpoint(e, label) => {
            let at = reference(ENDPOINTS[e]);
            let old = state.endpoints.get(&at);
            let old = old.ok_or_else(|| Problem::not_found(Kind::Endpoint, &at))?;
            update_endpoint(state, context, &at, label_request(old, label))
        }
        Call::DeleteEndpoint(e) => delete_endpoint(state, &reference(ENDPOINTS[e])),
        Call::Decide(e, wanted) => {
            let at = reference(ENDPOINTS[e]);
            let old = state.endpoints.get(&at);
            let old = old.ok_or_else(|| Problem::not_found(Kind::Endpoint, &at))?;
            let decision = match wanted {
                ConnectionState::Approved => Decision::Approve,
                ConnectionState::Rejected => Decision::Reject,
                _ => Decision::Remove,
            };
            let service = old.object.service_identity.reference.clone();
            let link = old.object.connection.link_id;
            decide(state, context, &service, link, decision, String::new())
        }
        Call::Service(s, auto, label) => {
            let at = reference(SERVICES[s]);
            let request = service_request(state, s, auto, label);
            if state.services.contains_key(&at) {
                update_service(state, context, &at, request)
            } else {
                create_service(state, context, policy, &at.tenant, request)
            }
        }
        Call::DeleteService(s) => delete_service(state, context, &reference(SERVICES[s]), true),
    }
}

/// Returns a manifest of the calls. A deletion is expressed by the absence of the object.
fn manifest(state: &State, calls: &[Call]) -> Manifest {
    let mut manifest = Manifest::default();
    let mut endpoints = BTreeMap::new();
    let mut connections = BTreeMap::new();
    let mut services = BTreeMap::new();
    for call in calls {
        match *call {
            Call::CreateEndpoint(e, s) => {
                endpoints.insert(e, endpoint_request(e, SERVICES[s], None));
            }
            Call::LabelEndpoint(e, label) => {
                if let Some(old) = state.endpoints.get(&reference(ENDPOINTS[e])) {
                    endpoints.insert(e, label_request(old, label));
                }
            }
            Call::Decide(e, wanted) => {
                connections.insert(e, wanted);
            }
            Call::Service(s, auto, label) => {
                services.insert(s, service_request(state, s, auto, label));
            }
            Call::DeleteEndpoint(_) | Call::DeleteService(_) => {}
        }
    }
    manifest.endpoints = endpoints
        .into_iter()
        .map(|(e, request)| owned(ENDPOINTS[e], request))
        .collect();
    manifest.services = services
        .into_iter()
        .map(|(s, request)| owned(SERVICES[s], request))
        .collect();
    manifest.connections = connections
        .into_iter()
        .map(|(e, state)| ConnectionEntry {
            endpoint: reference(ENDPOINTS[e]),
            state,
            reason: String::new(),
        })
        .collect();
    manifest
}

fn owned<T>(at: &str, request: T) -> ManifestEntry<T> {
    ManifestEntry {
        tenant: reference(at).tenant,
        alias: None,
        request,
    }
}

/// Returns true if the principal has one of the roles. Written independently of the code under test.
fn has_role(principal: &Principal, tenant: &Name, roles: [Role; 2]) -> bool {
    match &principal.access {
        Access::Operator => true,
        Access::Tenants(has) => has.get(tenant).is_some_and(|role| roles.contains(role)),
    }
}

fn is_provider(principal: &Principal, tenant: &Name) -> bool {
    has_role(principal, tenant, [Role::Provider, Role::Admin])
}

fn is_consumer(principal: &Principal, tenant: &Name) -> bool {
    has_role(principal, tenant, [Role::Consumer, Role::Admin])
}

/// Fails if the caller may not make the step from one state to the other.
fn check_permissions(before: &State, after: &State, principal: &Principal) -> Result<(), TestCaseError> {
    for (at, new) in &after.endpoints {
        let endpoint = &new.object;
        let provider = &endpoint.service_identity.reference.tenant;
        let old = before.endpoints.get(at);
        let old = old.filter(|old| old.meta.uid == new.meta.uid);
        let decides = is_provider(principal, provider);
        let Some(old) = old else {
            prop_assert!(is_consumer(principal, &at.tenant), "{at} was created");
            let service = after.services.get(&endpoint.service_identity.reference);
            let automatic =
                service.is_some_and(|s| s.object.spec.auto_approval.contains(&at.tenant));
            let expected = match endpoint.connection.state {
                ConnectionState::Pending => true,
                ConnectionState::Approved => automatic || decides,
                _ => decides,
            };
            prop_assert!(expected, "{at} was created {}", endpoint.connection.state);
            continue;
        };
        if old.object.connection != endpoint.connection {
            prop_assert!(decides, "the connection of {at} was decided");
            let (old_connection, now) = (&old.object.connection, &endpoint.connection);
            prop_assert_eq!(
                (old_connection.link_id, old_connection.slot),
                (now.link_id, now.slot)
            );
        }
        if old.meta.labels != new.meta.labels {
            prop_assert!(is_consumer(principal, &at.tenant), "{at} was labelled");
        }
        prop_assert_eq!(&old.object.service_identity, &endpoint.service_identity);
        prop_assert_eq!(&old.object.addresses, &endpoint.addresses);
    }
    for at in before.endpoints.keys() {
        if !after.endpoints.contains_key(at) {
            prop_assert!(is_consumer(principal, &at.tenant), "{at} was deleted");
        }
    }
    let services = before.services.keys().chain(after.services.keys());
    for at in services {
        let (then, now) = (before.services.get(at), after.services.get(at));
        let same = match (then, now) {
            (Some(then), Some(now)) => {
                (&then.object, &then.meta.labels) == (&now.object, &now.meta.labels)
            }
            _ => false,
        };
        prop_assert!(
            same || is_provider(principal, &at.tenant),
            "{at} was changed"
        );
    }
    if !principal.is_operator() {
        prop_assert_eq!(&before.tenants, &after.tenants);
        prop_assert_eq!(&before.networks, &after.networks);
    }
    Ok(())
}

/// Number of sequences.
const CASES: u32 = 100_000;

/// Runs a part of the sequences, with a fixed seed. A test for each part lets all processors be used.
fn nobody_exceeds_the_roles(part: u8, parts: u32) {
    let config = Config {
        cases: CASES / parts,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[part; 32]);
    let start = world();
    let approved = std::cell::Cell::new([0u32; 3]);
    let result = TestRunner::new_with_rng(config, rng).run(&vec(step(), 1..5), |steps| {
        let mut run = Run {
            state: start.state.clone(),
            revision: 1_000,
            identifiers: Counted::default(),
            policy: Policy::default(),
        };
        // The identifiers of the initial state are not used again.
        run.identifiers.skip(10_000);
        for step in &steps {
            let principal = caller(step.caller);
            let Ok(changes) = run.carry_out(step, &principal) else {
                continue;
            };
            let before = run.state.clone();
            run.revision += 1;
            run.state.apply(changes, run.revision);
            check_permissions(&before, &run.state, &principal)?;
            let mut counts = approved.get();
            counts[0] += 1;
            counts[1] += u32::from(step.manifest);
            let is_approved = |state: &State| {
                let connections = state.endpoints.values().map(|e| &e.object.connection);
                connections
                    .filter(|c| c.state == ConnectionState::Approved)
                    .count()
            };
            counts[2] += u32::from(is_approved(&run.state) > is_approved(&before));
            approved.set(counts);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // A run in which nearly every step is refused would prove nothing.
    let [done, manifests, approvals] = approved.get();
    assert!(done > CASES / parts / 4, "{done} steps succeeded");
    assert!(manifests > done / 10, "{manifests} manifests of {done}");
    assert!(approvals > done / 100, "{approvals} approvals of {done}");
}

#[test]
fn nobody_exceeds_the_roles_in_the_first_half_of_the_sequences() {
    nobody_exceeds_the_roles(1, 2);
}

#[test]
fn nobody_exceeds_the_roles_in_the_second_half_of_the_sequences() {
    nobody_exceeds_the_roles(2, 2);
}

/// Returns the result of a manifest with a new endpoint of `c` and its connection in a state.
fn self_approval(principal: &Principal, state: ConnectionState) -> Result<Vec<Change>, Problem> {
    let start = world();
    let mut run = Run {
        state: start.state,
        revision: 1_000,
        identifiers: Counted::default(),
        policy: Policy::default(),
    };
    let step = Step {
        caller: 0,
        calls: vec![Call::CreateEndpoint(2, 0), Call::Decide(2, state)],
        manifest: true,
        options: ApplyOptions::default(),
    };
    run.carry_out(&step, principal)
}

fn in_tenants(roles: &[(&str, Role)]) -> Principal {
    let roles = roles.iter().map(|(tenant, role)| (name(tenant), *role));
    Principal {
        identity: "token 1".to_owned(),
        name: "somebody".to_owned(),
        from: "192.0.2.1".to_owned(),
        access: Access::Tenants(roles.collect()),
    }
}

#[test]
fn a_consumer_does_not_approve_the_endpoint_that_it_creates() {
    use ConnectionState::{Approved, Disconnected, Pending, Rejected};
    let consumer = in_tenants(&[("c", Role::Admin)]);
    for state in [Approved, Rejected, Disconnected] {
        let problem = self_approval(&consumer, state).unwrap_err();
        assert_eq!(problem.code, ProblemCode::Forbidden, "{state}");
        // A consumer that only knows the alias must not learn the provider.
        assert!(!problem.detail.contains("tenant p"), "{problem}");
    }
    assert!(self_approval(&consumer, Pending).is_ok());
    let viewer = in_tenants(&[("c", Role::Admin), ("p", Role::Viewer)]);
    let problem = self_approval(&viewer, Approved).unwrap_err();
    assert_eq!(problem.code, ProblemCode::Forbidden);
    let both = in_tenants(&[("c", Role::Consumer), ("p", Role::Provider)]);
    assert!(self_approval(&both, Approved).is_ok());
}

#[test]
fn a_decision_does_not_authorize_a_label_change_of_a_viewer() {
    let mut run = Run {
        state: world().state,
        revision: 1_000,
        identifiers: Counted::default(),
        policy: Policy::default(),
    };
    let step = |calls| Step {
        caller: 0,
        calls,
        manifest: true,
        options: ApplyOptions::default(),
    };
    let principal = in_tenants(&[("c", Role::Viewer), ("p", Role::Provider)]);
    let decision = Call::Decide(0, ConnectionState::Approved);
    let both = step(vec![Call::LabelEndpoint(0, 1), decision]);
    let problem = run.carry_out(&both, &principal).unwrap_err();
    assert_eq!(problem.code, ProblemCode::Forbidden);
    assert!(run.carry_out(&step(vec![decision]), &principal).is_ok());
}

#[test]
fn a_manifest_does_not_reveal_invisible_connections() {
    let stranger = in_tenants(&[("q", Role::Admin)]);
    let start = world();
    let ask = |endpoint: &str, state| {
        let manifest = Manifest {
            connections: vec![ConnectionEntry {
                endpoint: reference(endpoint),
                state,
                reason: String::new(),
            }],
            ..Manifest::default()
        };
        let mut identifiers = Counted::default();
        let mut context = OpContext {
            now: Timestamp::UNIX_EPOCH,
            actor: "somebody",
            identifiers: &mut identifiers,
            host: &HostAddresses::default(),
        };
        let policy = Policy::default();
        apply(
            &start.state,
            &mut context,
            &policy,
            &stranger,
            &manifest,
            ApplyOptions::default(),
        )
    };
    // `c/e1` is Pending, `d/e1` Rejected, and the others do not exist.
    for state in [
        ConnectionState::Pending,
        ConnectionState::Approved,
        ConnectionState::Rejected,
        ConnectionState::Disconnected,
    ] {
        for endpoint in ["c/e1", "d/e1", "c/never", "never/never"] {
            let problem = ask(endpoint, state).unwrap_err();
            assert_eq!(
                problem,
                Problem::not_found(Kind::Endpoint, &endpoint),
                "{state}"
            );
        }
    }
    // The provider sees the requests to its own services.
    assert!(ask("c/e2", ConnectionState::Rejected).is_ok());
}

#[test]
fn a_decision_about_an_own_endpoint_does_not_reveal_the_provider() {
    let mut start = world();
    start.decide("p/open", "c/e1", Decision::Remove).unwrap();
    let consumer = in_tenants(&[("c", Role::Admin)]);
    // The connection is Disconnected and the service is deleted: other problems would name both.
    start.state.services.remove(&reference("p/open"));
    let manifest = Manifest {
        connections: vec![ConnectionEntry {
            endpoint: reference("c/e1"),
            state: ConnectionState::Approved,
            reason: String::new(),
        }],
        ..Manifest::default()
    };
    let problem = applied(&start.state, &consumer, &manifest, ApplyOptions::default()).unwrap_err();
    assert_eq!(problem.code, ProblemCode::Forbidden);
    assert!(!problem.detail.contains("p/open"), "{problem}");
}

#[test]
fn pruning_ignores_tenants_absent_from_the_manifest() {
    let start = world();
    // Another tenant gave the caller a role without its consent.
    let caller = in_tenants(&[("c", Role::Admin), ("q", Role::Viewer)]);
    let exported = Manifest::from_state(&start.state, |tenant| *tenant == name("c"));
    let mut less = exported.clone();
    less.endpoints
        .retain(|entry| entry.request.name != Some(name("e1")));
    less.connections
        .retain(|entry| entry.endpoint != reference("c/e1"));
    let prune = ApplyOptions {
        prune: true,
        force: true,
    };
    let changes = applied(&start.state, &caller, &less, prune).unwrap();
    let deleted: Vec<String> = changes.iter().map(|c| c.object().path()).collect();
    assert_eq!(deleted, ["c/e1"]);
}

fn applied(
    state: &State,
    principal: &Principal,
    manifest: &Manifest,
    options: ApplyOptions,
) -> Result<Vec<Change>, Problem> {
    let mut identifiers = Counted::default();
    identifiers.skip(10_000);
    let mut context = OpContext {
        now: Timestamp::UNIX_EPOCH,
        actor: "somebody",
        host: &HostAddresses::default(),
        identifiers: &mut identifiers,
    };
    let policy = Policy::default();
    apply(state, &mut context, &policy, principal, manifest, options).map(|(changes, _)| changes)
}
