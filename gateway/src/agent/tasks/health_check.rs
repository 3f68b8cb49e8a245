//! Health checks: the host itself probes backends through the interfaces of their networks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use log::{info, warn};
use reqwest::{Client, redirect};
use tokio::{
    net::TcpSocket,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    agent::{Agent, controller::Controller},
    compile::observed::HealthCheckKey,
    model::{
        Name, Reference, State,
        service::{HealthCheck, HealthCheckKind, HealthState, PortNumber, Protocol, Resource},
        text,
    },
};

/// Interval at which due checks are started.
const SCHEDULER_INTERVAL: Duration = Duration::from_millis(250);

/// Delay before a backend without a next hop is considered again.
const UNREACHABLE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Health of the backends that are checked.
pub type HealthByBackend = BTreeMap<HealthCheckKey, HealthState>;

/// One probe of a backend.
#[derive(Clone, Debug)]
struct Probe {
    check: HealthCheck,
    interface: String,
    server: SocketAddr,
}

/// Returns the backends of the service that are to be checked.
fn checked_backends(state: &State, service: &Reference) -> BTreeSet<HealthCheckKey> {
    let mut keys = BTreeSet::new();
    let Some(record) = state.services.get(service) else {
        return keys;
    };
    let spec = &record.object.spec;
    if spec.health_check.check == HealthCheckKind::None {
        return keys;
    }
    for resource in &spec.resources {
        if probe_port(&spec.health_check, resource).is_some() {
            let backends = resource.backends.iter();
            keys.extend(backends.map(|b| (service.clone(), resource.name.clone(), b.address)));
        }
    }
    keys
}

/// Returns the probe for a backend. `None` if it has no next hop: it is not selected for flows then anyway.
fn probe_for(
    controller: &Controller,
    (service, resource, address): &HealthCheckKey,
) -> Option<Probe> {
    let spec = &controller.state.services.get(service)?.object.spec;
    let port = probe_port(&spec.health_check, spec.resource(resource)?)?;
    let network = Reference::new(service.tenant.clone(), spec.network.clone());
    let hop = controller.observed().next_hops.get(&(network, *address))?;
    Some(Probe {
        check: spec.health_check.clone(),
        interface: hop.interface.clone(),
        server: SocketAddr::new(*address, port),
    })
}

/// Times at which backends are checked next.
#[derive(Debug, Default)]
struct ProbeSchedule {
    due: BTreeMap<HealthCheckKey, Instant>,
    by_time: BTreeSet<(Instant, HealthCheckKey)>,
}

impl ProbeSchedule {
    fn set(&mut self, key: HealthCheckKey, at: Instant) {
        if let Some(before) = self.due.insert(key.clone(), at) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Schedules exactly these backends of the service, at once.
    fn set_service(&mut self, service: &Reference, keys: &BTreeSet<HealthCheckKey>, now: Instant) {
        for key in keys_of_service(&self.due, service) {
            if let Some(before) = self.due.remove(&key) {
                self.by_time.remove(&(before, key));
            }
        }
        for key in keys {
            self.set(key.clone(), now);
        }
    }

    /// Removes and returns a backend whose check is due.
    fn take_due(&mut self, now: Instant) -> Option<HealthCheckKey> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.due.remove(&key);
        Some(key)
    }
}

/// Returns the keys that belong to a service.
fn keys_of_service<T>(
    known: &BTreeMap<HealthCheckKey, T>,
    service: &Reference,
) -> Vec<HealthCheckKey> {
    let first = (service.clone(), Name::min(), IpAddr::from([0, 0, 0, 0]));
    known
        .range(first..)
        .map(|(key, _)| key)
        .take_while(|key| key.0 == *service)
        .cloned()
        .collect()
}

/// Returns the port to probe: the configured one, or the backend port of the resource's first TCP port.
fn probe_port(check: &HealthCheck, resource: &Resource) -> Option<u16> {
    check.port.or_else(|| {
        let mut ports = resource.ports.iter();
        ports.find_map(|port| match (port.protocol, port.port) {
            (Protocol::Tcp, PortNumber::One(number)) => Some(port.backend_port.unwrap_or(number)),
            _ => None,
        })
    })
}

/// Runs one probe.
async fn run_probe(probe: &Probe) -> Result<()> {
    let limit = Duration::from_secs(u64::from(probe.check.timeout));
    let answer = async {
        match probe.check.check {
            HealthCheckKind::None => Ok(()),
            HealthCheckKind::Tcp => probe_tcp(probe).await,
            HealthCheckKind::Http => probe_http(probe, "http").await,
            HealthCheckKind::Https => probe_http(probe, "https").await,
        }
    };
    match timeout(limit, answer).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("timed out after {} s", probe.check.timeout)),
    }
}

async fn probe_tcp(probe: &Probe) -> Result<()> {
    let socket = match probe.server {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket
        .bind_device(Some(probe.interface.as_bytes()))
        .with_context(|| format!("failed to bind the probe to interface {}", probe.interface))?;
    socket.connect(probe.server).await?;
    Ok(())
}

async fn probe_http(probe: &Probe, scheme: &str) -> Result<()> {
    let client = Client::builder()
        .interface(&probe.interface)
        .redirect(redirect::Policy::none())
        .tls_danger_accept_invalid_certs(true)
        .tls_certs_only([])
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()?;
    let url = format!("{scheme}://{}{}", probe.server, probe.check.path);
    let response = client.get(url).send().await.map_err(root_cause)?;
    let status = response.status().as_u16();
    if !probe.check.expected_status.contains(status) {
        bail!("status {status} instead of {}", probe.check.expected_status);
    }
    Ok(())
}

/// Returns the innermost cause of an error, without the request that the outer ones repeat.
fn root_cause(error: reqwest::Error) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    anyhow!("{}", error.root_cause())
}

/// Checks backends until the process ends.
pub async fn run(agent: Arc<Agent>) {
    let mut ticks = interval(SCHEDULER_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut schedule = ProbeSchedule::default();
    let mut in_flight: BTreeSet<HealthCheckKey> = BTreeSet::new();
    let mut checks = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(done) = checks.join_next() => {
                if let Ok((key, check, outcome)) = done {
                    in_flight.remove(&key);
                    record_result(&agent, key, &check, outcome).await;
                }
                continue;
            }
        }
        let now = Instant::now();
        let mut controller = agent.controller.lock().await;
        for service in std::mem::take(&mut controller.services_to_recheck) {
            let keys = checked_backends(&controller.state, &service);
            schedule.set_service(&service, &keys, now);
            drop_unchecked(&mut controller, &service, &keys);
        }
        while let Some(key) = schedule.take_due(now) {
            if in_flight.contains(&key) {
                schedule.set(key, now + SCHEDULER_INTERVAL);
                continue;
            }
            let Some(probe) = probe_for(&controller, &key) else {
                schedule.set(key, now + UNREACHABLE_RETRY_INTERVAL);
                continue;
            };
            let every = Duration::from_secs(u64::from(probe.check.interval));
            schedule.set(key.clone(), now + every);
            in_flight.insert(key.clone());
            checks.spawn(async move {
                let outcome = run_probe(&probe).await;
                let outcome = outcome.map_err(|error| text::truncated(&format!("{error:#}"), 500));
                (key, probe.check, outcome)
            });
        }
    }
}

/// Forgets the health of the service's backends that are no longer checked: they count as healthy. A backend that is
/// checked but can't be reached keeps its health.
fn drop_unchecked(
    controller: &mut Controller,
    service: &Reference,
    checked: &BTreeSet<HealthCheckKey>,
) {
    let mut unchecked = keys_of_service(&controller.backend_health, service);
    unchecked.retain(|key| !checked.contains(key));
    for key in &unchecked {
        controller.backend_health.remove(key);
        controller.observe_health(key, false);
    }
    if !unchecked.is_empty() {
        reconcile_or_warn(controller);
    }
}

/// Records the result of a check.
async fn record_result(
    agent: &Agent,
    key: HealthCheckKey,
    check: &HealthCheck,
    outcome: Result<(), String>,
) {
    let mut controller = agent.controller.lock().await;
    let (service, resource, address) = &key;
    // The check may have been removed or changed meanwhile.
    let current = controller.state.services.get(service);
    if current.is_none_or(|record| record.object.spec.health_check != *check)
        || !checked_backends(&controller.state, service).contains(&key)
    {
        return;
    }
    let health = controller.backend_health.entry(key.clone()).or_default();
    if !health.observe(check, outcome) {
        return;
    }
    if health.unhealthy {
        let error = health.last_error.as_deref().unwrap_or_default();
        warn!(
            "health check: backend unhealthy backend={address} service={service} resource={resource} \
             error=\"{error}\""
        );
    } else {
        info!(
            "health check: backend healthy backend={address} service={service} resource={resource}"
        );
    }
    let unhealthy = health.unhealthy;
    controller.observe_health(&key, unhealthy);
    reconcile_or_warn(&mut controller);
}

fn reconcile_or_warn(controller: &mut Controller) {
    if let Err(error) = tokio::task::block_in_place(|| controller.reconcile()) {
        warn!("health check: result not in the maps yet error=\"{error:#}\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_holds_each_key_once_and_drops_those_of_a_removed_service() {
        let key = |service: &str, last: u8| -> HealthCheckKey {
            let service = service.parse().unwrap();
            (
                service,
                "default".parse().unwrap(),
                IpAddr::from([10, 1, 0, last]),
            )
        };
        let mut schedule = ProbeSchedule::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let shop: Reference = "p/shop".parse().unwrap();
        let both = BTreeSet::from([key("p/shop", 1), key("p/shop", 2)]);
        schedule.set_service(&shop, &both, start);
        schedule.set(key("p/other", 3), later);
        schedule.set(key("p/shop", 2), later);
        assert_eq!(schedule.take_due(start), Some(key("p/shop", 1)));
        assert_eq!(schedule.take_due(start), None);
        assert_eq!(schedule.by_time.len(), 2);
        schedule.set_service(&shop, &BTreeSet::new(), start);
        assert_eq!(schedule.take_due(later), Some(key("p/other", 3)));
        assert_eq!(schedule.take_due(later), None);
        assert!(schedule.due.is_empty() && schedule.by_time.is_empty());
    }
}
