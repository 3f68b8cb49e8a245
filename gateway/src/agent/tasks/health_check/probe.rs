//! One probe of a backend: TCP, HTTP, HTTPS or UDP.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::{Client, redirect};
use tokio::{
    net::{TcpSocket, UdpSocket},
    time::timeout,
};

use crate::{
    agent::controller::Controller,
    compile::observed::HealthCheckKey,
    model::{
        Reference,
        service::{HealthCheck, HealthCheckKind, Payload},
        text,
    },
};

/// Number of bytes of an answer that are read.
const MAX_ANSWER: usize = 2_048;

/// Number of characters of an answer that are shown.
const MAX_SHOWN: usize = 60;

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
        let port = spec.health_check.probe_port(spec.resource(resource)?)?;
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
                HealthCheckKind::Udp => self.exchange().await,
            }
        };
        match timeout(limit, answer).await {
            Ok(outcome) => outcome,
            // Silence is what a check without an expected answer waits for.
            Err(_) if self.check.check == HealthCheckKind::Udp && self.check.expect.is_empty() => {
                Ok(())
            }
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

    /// Sends the datagram, and waits for the answer. An ICMP error is reported by the socket, since it is connected.
    async fn exchange(&self) -> Result<()> {
        let any: IpAddr = match self.server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket
            .bind_device(Some(self.interface.as_bytes()))
            .with_context(|| format!("failed to bind the probe to interface {}", self.interface))?;
        socket.connect(self.server).await?;
        socket.send(self.check.send.bytes()).await?;
        let mut answer = [0; MAX_ANSWER];
        let length = socket.recv(&mut answer).await?;
        let (answer, expected) = (&answer[..length], &self.check.expect);
        if !answer.starts_with(expected.bytes()) {
            let answer = text::truncated(&Payload::from(answer).to_string(), MAX_SHOWN);
            bail!("answer \"{answer}\" does not begin with \"{expected}\"");
        }
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

/// Returns the innermost cause of an error, without the request that the outer ones repeat.
fn root_cause(error: reqwest::Error) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    anyhow!("{}", error.root_cause())
}
