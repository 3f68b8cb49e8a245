//! Desired state for the differential harness, without store and agent.

use std::net::IpAddr;

use gateway::model::{
    Change, Decision, HostAddresses, HostUses, Identifiers, OpContext, Problem, Reference, State,
    operations::{self, Policy},
};
use serde_json::{Value, json};

use crate::packet::addresses::{
    ALL_PORTS_ENDPOINT, BACKENDS, BACKENDS_V6, DNS, DROPPING_ENDPOINT, ENDPOINT, ENDPOINT_V6,
    HTTPS, NAT46_ENDPOINT, NAT64_ENDPOINT, NO_BACKENDS_ENDPOINT, PENDING, PENDING_V6, Side,
};

/// Sequential identifiers.
struct SequentialIds(u128);

impl Identifiers for SequentialIds {
    fn bits(&mut self) -> u128 {
        self.0 += 1;
        self.0 << 96 | self.0 << 64 | self.0 << 32 | self.0
    }
}

/// Desired state, and the operations that change it.
pub(crate) struct DesiredFixture {
    /// The state.
    pub(crate) state: State,
    identifiers: SequentialIds,
    revision: u64,
}

impl DesiredFixture {
    /// Applies an operation that must succeed.
    pub(crate) fn change(
        &mut self,
        operation: impl FnOnce(&State, &mut OpContext<'_>, &Policy) -> Result<Vec<Change>, Problem>,
    ) {
        let mut context = OpContext {
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            actor: "harness",
            is_operator: false,
            identifiers: &mut self.identifiers,
            host: &HostAddresses::default(),
            host_uses: &HostUses::default(),
            event_boundary: gateway::model::event_id::EventId::default(),
        };
        let changes = operation(&self.state, &mut context, &Policy::default());
        self.revision += 1;
        self.state.apply(
            changes.expect("an operation that is allowed"),
            self.revision,
        );
    }

    /// Returns the initial configuration.
    pub(crate) fn with_initial_objects() -> Self {
        let mut desired = Self {
            state: State::default(),
            identifiers: SequentialIds(1),
            revision: 0,
        };
        for (tenant, side) in [("a", Side::A), ("b", Side::B), ("shop", Side::Provider)] {
            desired.change(|state, context, _| {
                operations::create_tenant(state, context, body(json!({ "name": tenant })))
            });
            let network = json!({
                "name": "net",
                "attachments": [{ "interface": side.interface() }],
            });
            desired.change(|state, context, policy| {
                let tenant = tenant.parse().expect("a name");
                operations::create_network(state, context, policy, &tenant, body(network))
            });
        }
        let web = json!([
            { "protocol": "tcp", "port": HTTPS, "backend_port": 8443 },
            { "protocol": "udp", "port": DNS },
        ]);
        let every = json!([{ "protocol": "tcp", "port": "*" }, { "protocol": "udp", "port": "*" }]);
        let backends = BACKENDS.map(IpAddr::V4);
        desired.service("web", &web, &backends, "10.1.0.64/28", json!({}));
        desired.service(
            "web6",
            &web,
            &BACKENDS_V6.map(IpAddr::V6),
            "fd00:1::40/124",
            json!({}),
        );
        desired.service("empty", &web, &[], "10.1.0.80/28", json!({}));
        desired.service(
            "silent",
            &web,
            &[],
            "10.1.0.96/28",
            json!({ "no_backend_action": "drop" }),
        );
        desired.service("every", &every, &backends[..1], "10.1.0.112", json!({}));
        for (endpoint, address, service, approved) in [
            ("a/web", IpAddr::V4(ENDPOINT), "web", true),
            ("b/web", ENDPOINT.into(), "web", true),
            ("a/pending", PENDING.into(), "web", false),
            ("a/empty", NO_BACKENDS_ENDPOINT.into(), "empty", true),
            ("a/silent", DROPPING_ENDPOINT.into(), "silent", true),
            ("a/every", ALL_PORTS_ENDPOINT.into(), "every", true),
            ("a/web6", ENDPOINT_V6.into(), "web6", true),
            ("b/web6", ENDPOINT_V6.into(), "web6", true),
            ("a/pending6", PENDING_V6.into(), "web6", false),
            ("a/four-to-six", NAT46_ENDPOINT.into(), "web6", true),
            ("a/six-to-four", NAT64_ENDPOINT.into(), "web", true),
            ("b/pending", PENDING.into(), "web", false),
        ] {
            desired.endpoint(endpoint, address, service);
            if approved {
                desired.decide(endpoint, Decision::Approve);
            }
        }
        desired
    }

    fn service(&mut self, name: &str, ports: &Value, backends: &[IpAddr], nat: &str, more: Value) {
        let backends: Vec<Value> = backends
            .iter()
            .map(|address| json!({ "address": address }))
            .collect();
        let mut request = json!({
            "name": name,
            "network": "net",
            "resources": [{ "ports": ports, "backends": backends }],
            "nat_addresses": [nat],
            "visibility": ["*"],
        });
        let fields = request.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        self.change(|state, context, policy| {
            let tenant = "shop".parse().expect("a name");
            operations::create_service(state, context, policy, &tenant, body(request))
        });
    }

    fn endpoint(&mut self, endpoint: &str, address: IpAddr, service: &str) {
        let Reference { tenant, name } = endpoint.parse().expect("a reference");
        let request = json!({
            "name": name,
            "network": "net",
            "addresses": [address],
            "service": format!("shop/{service}"),
        });
        self.change(|state, context, policy| {
            operations::create_endpoint(state, context, policy, &tenant, body(request))
        });
    }

    /// Applies a provider's decision on a connection.
    pub(crate) fn decide(&mut self, endpoint: &str, decision: Decision) {
        let endpoint: Reference = endpoint.parse().expect("a reference");
        let record = self.state.endpoints[&endpoint].object.clone();
        let service = record.service_identity.reference;
        self.change(|state, context, _| {
            let link_id = record.connection.link_id;
            operations::decide(state, context, &service, link_id, decision, String::new())
        });
    }
}

/// Parses a request body.
pub(crate) fn body<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a request")
}
