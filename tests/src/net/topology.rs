//! The testbed: two consumers whose networks use the same addresses, a provider with two backends, and a gateway
//! between them.
//!
//! ```text
//!  consumer a 10.0.0.5 --- a \
//!                             gateway --- p --- provider 10.1.0.10, 10.1.0.11
//!  consumer b 10.0.0.5 --- b /
//! ```

use std::sync::Arc;

use crate::{
    net::{namespace::Namespace, wait},
    services::agent::Agent,
};

/// The address of both consumers' clients.
pub const CLIENT: &str = "10.0.0.5";
/// The address of every endpoint.
pub const ENDPOINT: &str = "10.0.0.100";
/// The backends.
pub const BACKENDS: [&str; 2] = ["10.1.0.10", "10.1.0.11"];
/// SNAT addresses in the provider's network: 10.1.0.64 to 10.1.0.79.
pub const NAT: &str = "10.1.0.64/28";

/// The testbed.
#[derive(Debug)]
pub struct Testbed {
    /// The gateway. It is dropped first, since the agent must not see its interfaces disappear.
    pub agent: Agent,
    /// The gateway's host.
    pub host: Arc<Namespace>,
    /// Host of consumer `a`.
    pub a: Namespace,
    /// Host of consumer `b`.
    pub b: Namespace,
    /// Host of the provider's servers, with two addresses.
    pub provider: Namespace,
}

impl Default for Testbed {
    fn default() -> Self {
        Self::new()
    }
}

impl Testbed {
    /// Returns a testbed with namespaces and an agent, without any objects.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    #[track_caller]
    pub fn unconfigured() -> Self {
        Self::unconfigured_with(&[])
    }

    /// Returns a testbed like [`Self::unconfigured`], whose agent has these settings, given as environment variables.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    #[track_caller]
    pub fn unconfigured_with(settings: &[(&str, &str)]) -> Self {
        let host = Arc::new(Namespace::new("gw"));
        let (a, b, provider) = (
            Namespace::new("a"),
            Namespace::new("b"),
            Namespace::new("p"),
        );
        for (interface, other, addresses) in [
            ("gw-a", &a, &[CLIENT][..]),
            ("gw-b", &b, &[CLIENT]),
            ("gw-p", &provider, &BACKENDS),
        ] {
            host.connect(interface, other);
            for address in addresses {
                other.ip(&format!("address add {address}/24 dev eth0"));
            }
        }
        let mut agent = Agent::prepare(&host);
        for (name, value) in settings {
            agent
                .settings
                .insert((*name).to_owned(), (*value).to_owned());
        }
        agent.restart();
        Self {
            agent,
            host,
            a,
            b,
            provider,
        }
    }

    /// Returns a testbed with tenants `a`, `b` and `shop`, their networks, a service `shop/web` on every TCP and UDP
    /// port, and an endpoint of each consumer whose connection is pending.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        let testbed = Self::unconfigured();
        testbed.configure();
        testbed
    }

    /// Creates the objects of [`Self::new`].
    ///
    /// # Panics
    /// Panics if the agent refuses.
    #[track_caller]
    pub fn configure(&self) {
        let testbed = self;
        for (tenant, interface) in [("a", "gw-a"), ("b", "gw-b"), ("shop", "gw-p")] {
            testbed.agent.cli(&format!("tenant create {tenant}"));
            testbed.agent.cli(&format!(
                "network create {tenant}/net --interface {interface}"
            ));
        }
        let [one, two] = BACKENDS;
        testbed.agent.cli(&format!(
            "service create shop/web --network net --port * --port */udp --backend {one} \
             --backend {two} --nat {NAT} --visibility *"
        ));
        for tenant in ["a", "b"] {
            testbed.agent.cli(&format!(
                "endpoint create {tenant}/web --network net --address {ENDPOINT} --service shop/web"
            ));
        }
        testbed.wait_for_backends();
    }

    /// Returns a testbed like [`Self::new`], with both connections approved.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    #[track_caller]
    pub fn with_approved_connections() -> Self {
        let testbed = Self::new();
        testbed.approve_connections();
        testbed
    }

    /// Approves both connections.
    ///
    /// # Panics
    /// Panics if the agent refuses.
    #[track_caller]
    pub fn approve_connections(&self) {
        for tenant in ["a", "b"] {
            self.agent.cli(&format!("connection approve {tenant}/web"));
        }
    }

    /// Waits until the gateway has a next hop for every backend.
    ///
    /// # Panics
    /// Panics if it does not learn it.
    #[track_caller]
    pub fn wait_for_backends(&self) {
        wait::until_true("the backends to be reachable", || {
            let service = self.agent.json("service show shop/web");
            let backends = service["status"]["backends"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            !backends.is_empty() && backends.iter().all(|backend| backend["reachable"] == true)
        });
    }
}
