//! Health checks: backends are asked through their provider's interface, by the host itself.

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
    agent::{Agent, core::Core},
    model::{
        Name, Reference,
        service::{Check, Health, HealthCheck, PortNumber, Protocol, Resource},
    },
};

/// A backend of a resource.
pub type Key = (Reference, Name, IpAddr);

/// How often it is looked whether a check is due.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of the health of backends.
pub type Healths = BTreeMap<Key, Health>;

/// A check to be made.
#[derive(Clone, Debug)]
struct Task {
    check: HealthCheck,
    interface: String,
    server: SocketAddr,
}

/// The checks that services ask for. Backends without a way are not asked: they take no flows anyway.
fn wanted(core: &Core) -> BTreeMap<Key, Task> {
    let mut tasks = BTreeMap::new();
    for (reference, record) in &core.state.services {
        let spec = &record.object.spec;
        if spec.health_check.check == Check::None {
            continue;
        }
        let network = Reference::new(reference.tenant.clone(), spec.network.clone());
        for resource in &spec.resources {
            let Some(port) = port(&spec.health_check, resource) else {
                continue;
            };
            for backend in &resource.backends {
                let hop = core
                    .observed()
                    .next_hops
                    .get(&(network.clone(), backend.address));
                let Some(hop) = hop else {
                    continue;
                };
                let key = (reference.clone(), resource.name.clone(), backend.address);
                let task = Task {
                    check: spec.health_check.clone(),
                    interface: hop.interface.clone(),
                    server: SocketAddr::new(backend.address, port),
                };
                tasks.insert(key, task);
            }
        }
    }
    tasks
}

/// The port that is asked: the one that was named, or the resource's first.
fn port(check: &HealthCheck, resource: &Resource) -> Option<u16> {
    check.port.or_else(|| {
        let mut ports = resource.ports.iter();
        ports.find_map(|port| match (port.protocol, port.port) {
            (Protocol::Tcp, PortNumber::One(number)) => Some(port.backend_port.unwrap_or(number)),
            _ => None,
        })
    })
}

/// Makes one check.
async fn ask(task: &Task) -> Result<()> {
    let limit = Duration::from_secs(u64::from(task.check.timeout));
    let answer = async {
        match task.check.check {
            Check::None => Ok(()),
            Check::Tcp => connect(task).await,
            Check::Http => request(task, "http").await,
            Check::Https => request(task, "https").await,
        }
    };
    match timeout(limit, answer).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("no answer within {} s", task.check.timeout)),
    }
}

async fn connect(task: &Task) -> Result<()> {
    let socket = match task.server {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket
        .bind_device(Some(task.interface.as_bytes()))
        .with_context(|| format!("the check can't be bound to {}", task.interface))?;
    socket.connect(task.server).await?;
    Ok(())
}

async fn request(task: &Task, scheme: &str) -> Result<()> {
    let client = Client::builder()
        .interface(&task.interface)
        .redirect(redirect::Policy::none())
        .tls_danger_accept_invalid_certs(true)
        .tls_certs_only([])
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()?;
    let url = format!("{scheme}://{}{}", task.server, task.check.path);
    let response = client.get(url).send().await.map_err(innermost)?;
    let status = response.status().as_u16();
    if !task.check.expected_status.contains(status) {
        bail!("status {status} instead of {}", task.check.expected_status);
    }
    Ok(())
}

/// What went wrong, without what was tried: that is known.
fn innermost(error: reqwest::Error) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    anyhow!("{}", error.root_cause())
}

/// Checks backends as long as the agent runs.
pub async fn run(agent: Arc<Agent>) {
    let mut turns = interval(LOOK);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due: BTreeMap<Key, Instant> = BTreeMap::new();
    let mut under_way: BTreeSet<Key> = BTreeSet::new();
    let mut checks = JoinSet::new();
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            Some(done) = checks.join_next() => {
                if let Ok((key, check, outcome)) = done {
                    under_way.remove(&key);
                    settle(&agent, key, &check, outcome).await;
                }
                continue;
            }
        }
        let tasks = {
            let mut core = agent.core.lock().await;
            let tasks = wanted(&core);
            forget(&mut core, &tasks);
            tasks
        };
        due.retain(|key, _| tasks.contains_key(key));
        let now = Instant::now();
        for (key, task) in tasks {
            if under_way.contains(&key) || due.get(&key).is_some_and(|at| *at > now) {
                continue;
            }
            let every = Duration::from_secs(u64::from(task.check.interval));
            due.insert(key.clone(), now + every);
            under_way.insert(key.clone());
            checks.spawn(async move {
                let outcome = ask(&task).await.map_err(|error| format!("{error:#}"));
                (key, task.check, outcome)
            });
        }
    }
}

/// What is no longer checked counts as healthy.
fn forget(core: &mut Core, tasks: &BTreeMap<Key, Task>) {
    // One that can't be reached stays as it was.
    let checked = |key: &Key| {
        tasks.contains_key(key)
            || core.state.services.get(&key.0).is_some_and(|record| {
                let spec = &record.object.spec;
                let resource = spec.resource(&key.1);
                spec.health_check.check != Check::None
                    && resource.is_some_and(|r| r.backends.iter().any(|b| b.address == key.2))
            })
    };
    core.healths.retain(|key, _| checked(key));
    let unhealthy = core.observed().unhealthy.iter();
    let gone: Vec<Key> = unhealthy
        .filter(|key| !core.healths.contains_key(*key))
        .cloned()
        .collect();
    if gone.is_empty() {
        return;
    }
    for key in &gone {
        core.observed_mut().unhealthy.remove(key);
    }
    reconcile(core);
}

/// Takes in what a check said.
async fn settle(agent: &Agent, key: Key, check: &HealthCheck, outcome: Result<(), String>) {
    let mut core = agent.core.lock().await;
    let (service, resource, address) = &key;
    // Meanwhile the check may have been withdrawn, or changed.
    let current = core.state.services.get(service);
    if current.is_none_or(|record| record.object.spec.health_check != *check) {
        return;
    }
    let health = core.healths.entry(key.clone()).or_default();
    if !health.observe(check, outcome) {
        return;
    }
    if health.unhealthy {
        let error = health.last_error.as_deref().unwrap_or_default();
        warn!("backend {address} of {service}, resource {resource}, is unhealthy: {error}");
        core.observed_mut().unhealthy.insert(key);
    } else {
        info!("backend {address} of {service}, resource {resource}, is healthy");
        core.observed_mut().unhealthy.remove(&key);
    }
    reconcile(&mut core);
}

fn reconcile(core: &mut Core) {
    if let Err(error) = tokio::task::block_in_place(|| core.reconcile()) {
        warn!("the data path does not know of it yet, and is told again: {error:#}");
    }
}
