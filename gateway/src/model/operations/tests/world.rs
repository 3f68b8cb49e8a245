//! State to which the tests apply operations.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::model::{
    Change, ConnectionState, Decision, HostAddresses, HostUses, Identifiers, Name, OpContext,
    Problem, ProblemCode, Reference, State,
    endpoint::{EndpointRequest, ReconnectRequest},
    network::NetworkRequest,
    operations::{
        Policy, create_endpoint, create_network, create_service, create_tenant, decide,
        delete_endpoint, delete_service, reconnect_endpoint, update_network, update_service,
    },
    service::ServiceRequest,
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
    pub(super) identifiers: Counted,
    pub(super) revision: u64,
    pub(super) policy: Policy,
    pub(crate) host: HostAddresses,
    pub(super) host_uses: HostUses,
    /// True if the operator makes the calls.
    pub(super) is_operator: bool,
    /// State before the last operation, and the changes of that operation.
    pub(crate) last: (State, Vec<Change>),
}

pub(super) type Outcome = Result<(), Problem>;

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(super) fn body<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Problem> {
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
            is_operator: self.is_operator,
            identifiers: &mut self.identifiers,
            host: &self.host,
            host_uses: &self.host_uses,
            event_boundary: crate::model::event_id::EventId::default(),
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

    pub(super) fn connection(&self, endpoint: &str) -> ConnectionState {
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

    /// Requests a new connection for an endpoint, with the given fields.
    pub(crate) fn reconnect(&mut self, at: &str, fields: Value) -> Outcome {
        let request: ReconnectRequest = body(fields)?;
        self.run(|state, context, _| reconnect_endpoint(state, context, &reference(at), request))
    }

    pub(crate) fn delete_service(&mut self, at: &str) -> Outcome {
        self.run(|state, context, _| delete_service(state, context, &reference(at), true))
    }

    /// Replaces the fields of a network.
    pub(super) fn update_network(&mut self, at: &str, interface: &str, changes: Value) -> Outcome {
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

/// Asserts that the outcome is a problem with this code and field, and that its detail contains the words.
#[track_caller]
pub(super) fn refused(outcome: Outcome, code: ProblemCode, field: Option<&str>, words: &str) {
    let problem = outcome.expect_err("the operation succeeded");
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (code, field),
        "{problem}"
    );
    assert!(problem.detail.contains(words), "{problem}");
}

/// Returns a valid request for a service, with changes.
pub(super) fn service_request(
    name: Option<&Name>,
    changes: Value,
) -> Result<ServiceRequest, Problem> {
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
pub(super) fn update_consumer_network(world: &mut World, fields: Value) -> Outcome {
    let mut value = json!({ "attachments": [{ "interface": "veth-c" }] });
    let map = value.as_object_mut().unwrap();
    map.extend(fields.as_object().unwrap().clone());
    let request: NetworkRequest = body(value)?;
    let network = reference("consumer/net");
    world.run(|state, context, _| update_network(state, context, &network, request))
}
