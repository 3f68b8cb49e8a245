//! One probe of a backend: TCP, HTTP or HTTPS.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::{Client, redirect};
use tokio::{net::TcpSocket, time::timeout};

use crate::{
    agent::controller::Controller,
    compile::observed::HealthCheckKey,
    model::{
        Reference,
        service::{HealthCheck, HealthCheckKind, PortNumber, Protocol, Resource},
    },
};

/// One probe of a backend.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) check: HealthCheck,
    pub(super) interface: String,
    pub(super) server: SocketAddr,
}

impl Probe {
    /// Returns the probe for a backend. `None` if it has no next hop: it is not selected for flows then anyway.
    pub(super) fn for_backend(
        controller: &Controller,
        (service, resource, address): &HealthCheckKey,
    ) -> Option<Self> {
        let spec = &controller.state().services.get(service)?.object.spec;
        let port = probe_port(&spec.health_check, spec.resource(resource)?)?;
        let network = Reference::new(service.tenant.clone(), spec.network.clone());
        let hop = controller.observed().next_hops.get(&(network, *address))?;
        Some(Self {
            check: spec.health_check.clone(),
            interface: hop.interface.clone(),
            server: SocketAddr::new(*address, port),
        })
    }

    /// Runs the probe.
    pub(super) async fn run(&self) -> Result<()> {
        let limit = Duration::from_secs(u64::from(self.check.timeout));
        let answer = async {
            match self.check.check {
                HealthCheckKind::None => Ok(()),
                HealthCheckKind::Tcp => self.connect().await,
                HealthCheckKind::Http => self.request("http").await,
                HealthCheckKind::Https => self.request("https").await,
            }
        };
        match timeout(limit, answer).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow!("timed out after {} s", self.check.timeout)),
        }
    }

    async fn connect(&self) -> Result<()> {
        let socket = match self.server {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket
            .bind_device(Some(self.interface.as_bytes()))
            .with_context(|| format!("failed to bind the probe to interface {}", self.interface))?;
        socket.connect(self.server).await?;
        Ok(())
    }

    async fn request(&self, scheme: &str) -> Result<()> {
        let client = Client::builder()
            .interface(&self.interface)
            .redirect(redirect::Policy::none())
            .tls_danger_accept_invalid_certs(true)
            .tls_certs_only([])
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()?;
        let url = format!("{scheme}://{}{}", self.server, self.check.path);
        let response = client.get(url).send().await.map_err(root_cause)?;
        let status = response.status().as_u16();
        if !self.check.expected_status.contains(status) {
            bail!("status {status} instead of {}", self.check.expected_status);
        }
        Ok(())
    }
}

/// Returns the port to probe: the configured one, or the backend port of the resource's first TCP port.
pub(super) fn probe_port(check: &HealthCheck, resource: &Resource) -> Option<u16> {
    check.port.or_else(|| {
        let mut ports = resource.ports.iter();
        ports.find_map(|port| match (port.protocol, port.port) {
            (Protocol::Tcp, PortNumber::One(number)) => Some(port.backend_port.unwrap_or(number)),
            _ => None,
        })
    })
}

/// Returns the innermost cause of an error, without the request that the outer ones repeat.
fn root_cause(error: reqwest::Error) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    anyhow!("{}", error.root_cause())
}
