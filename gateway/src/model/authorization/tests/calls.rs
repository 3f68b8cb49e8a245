//! Calls of the tests, as single requests and as manifests.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;

/// Two providers and two consumers.
pub(super) const TENANTS: [&str; 4] = ["p", "q", "c", "d"];
pub(super) const SERVICES: [&str; 4] = ["p/open", "p/auto", "q/open", "q/new"];
pub(super) const ENDPOINTS: [&str; 6] = ["c/e1", "c/e2", "c/new", "d/e1", "d/new", "p/own"];

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Returns a world with connections in several states, to services with and without automatic approval.
pub(super) fn world() -> World {
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
pub(super) enum Call {
    CreateEndpoint(usize, usize),
    LabelEndpoint(usize, u8),
    DeleteEndpoint(usize),
    /// Requests a new connection of an endpoint, to a service.
    Reconnect(usize, usize),
    Decide(usize, ConnectionState),
    /// Creates or changes a service: its index, its automatic approval, a label.
    Service(usize, u8, u8),
    DeleteService(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) caller: u16,
    pub(super) calls: Vec<Call>,
    pub(super) manifest: bool,
    pub(super) options: ApplyOptions,
}

pub(super) fn endpoint_request(
    endpoint: usize,
    service: &str,
    labels: Option<Labels>,
) -> EndpointRequest {
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

pub(super) fn labels(number: u8) -> Labels {
    [("l".to_owned(), number.to_string())].into()
}

/// Returns the request that only changes the labels.
pub(super) fn label_request(old: &Record<Endpoint>, label: u8) -> EndpointRequest {
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

pub(super) fn service_request(
    state: &State,
    service: usize,
    auto: u8,
    label: u8,
) -> ServiceRequest {
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

pub(super) struct Run {
    pub(super) state: State,
    pub(super) revision: u64,
    pub(super) identifiers: Counted,
    pub(super) policy: Policy,
}

impl Run {
    /// Runs the step as the agent does: the route's permission, the operation, the authorization of its changes.
    pub(super) fn carry_out(
        &mut self,
        step: &Step,
        principal: &Principal,
    ) -> Result<Vec<Change>, Problem> {
        let mut context = OpContext {
            now: Timestamp::UNIX_EPOCH,
            actor: "somebody",
            is_operator: false,
            identifiers: &mut self.identifiers,
            host: &HostAddresses::default(),
            host_uses: &HostUses::default(),
            event_boundary: crate::model::event_id::EventId::default(),
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
pub(super) fn route(state: &State, call: Call) -> (Name, Permission) {
    match call {
        Call::CreateEndpoint(e, _)
        | Call::LabelEndpoint(e, _)
        | Call::Reconnect(e, _)
        | Call::DeleteEndpoint(e) => (reference(ENDPOINTS[e]).tenant, Permission::Endpoints),
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

pub(super) fn operation(
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
        Call::Reconnect(e, s) => {
            let request = ReconnectRequest {
                service: Some(SERVICES[s].to_owned()),
                ..ReconnectRequest::default()
            };
            reconnect_endpoint(state, context, &reference(ENDPOINTS[e]), request)
        }
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
pub(super) fn manifest(state: &State, calls: &[Call]) -> Manifest {
    let mut manifest = Manifest::default();
    let mut endpoints = BTreeMap::new();
    let mut connections = BTreeMap::new();
    let mut services = BTreeMap::new();
    for call in calls {
        match *call {
            Call::CreateEndpoint(e, s) | Call::Reconnect(e, s) => {
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

pub(super) fn owned<T>(at: &str, request: T) -> ManifestEntry<T> {
    ManifestEntry {
        tenant: reference(at).tenant,
        alias: None,
        request,
    }
}
