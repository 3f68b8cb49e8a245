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
    dataplane::observed::CheckedKey,
    model::{
        Name, Reference, State,
        service::{Check, Health, HealthCheck, PortNumber, Protocol, Resource},
        text,
    },
};

/// How often it is looked whether a check is due.
const LOOK: Duration = Duration::from_millis(250);

/// A backend that there is no way to is looked for again after so long.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// What is known of the health of backends.
pub type Healths = BTreeMap<CheckedKey, Health>;

/// A check to be made.
#[derive(Clone, Debug)]
struct Task {
    check: HealthCheck,
    interface: String,
    server: SocketAddr,
}

/// The service's backends that are to be checked.
fn checked(state: &State, service: &Reference) -> BTreeSet<CheckedKey> {
    let mut keys = BTreeSet::new();
    let Some(record) = state.services.get(service) else {
        return keys;
    };
    let spec = &record.object.spec;
    if spec.health_check.check == Check::None {
        return keys;
    }
    for resource in &spec.resources {
        if port(&spec.health_check, resource).is_some() {
            let backends = resource.backends.iter();
            keys.extend(backends.map(|b| (service.clone(), resource.name.clone(), b.address)));
        }
    }
    keys
}

/// How to check a backend; none if there is no way to it: it takes no flows anyway.
fn task(core: &Core, (service, resource, address): &CheckedKey) -> Option<Task> {
    let spec = &core.state.services.get(service)?.object.spec;
    let port = port(&spec.health_check, spec.resource(resource)?)?;
    let network = Reference::new(service.tenant.clone(), spec.network.clone());
    let hop = core.observed().next_hops.get(&(network, *address))?;
    Some(Task {
        check: spec.health_check.clone(),
        interface: hop.interface.clone(),
        server: SocketAddr::new(*address, port),
    })
}

/// When which backend is checked next.
#[derive(Debug, Default)]
struct Timetable {
    due: BTreeMap<CheckedKey, Instant>,
    order: BTreeSet<(Instant, CheckedKey)>,
}

impl Timetable {
    fn set(&mut self, key: CheckedKey, at: Instant) {
        if let Some(before) = self.due.insert(key.clone(), at) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((at, key));
    }

    /// These of the service are checked, at once, and no others.
    fn set_service(&mut self, service: &Reference, keys: &BTreeSet<CheckedKey>, now: Instant) {
        for key in of_service(&self.due, service) {
            if let Some(before) = self.due.remove(&key) {
                self.order.remove(&(before, key));
            }
        }
        for key in keys {
            self.set(key.clone(), now);
        }
    }

    /// Takes out one that is due.
    fn take_due(&mut self, now: Instant) -> Option<CheckedKey> {
        if self.order.first()?.0 > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some(key)
    }
}

/// The keys of a service.
fn of_service<T>(known: &BTreeMap<CheckedKey, T>, service: &Reference) -> Vec<CheckedKey> {
    let first = (service.clone(), Name::lowest(), IpAddr::from([0, 0, 0, 0]));
    known
        .range(first..)
        .map(|(key, _)| key)
        .take_while(|key| key.0 == *service)
        .cloned()
        .collect()
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
    let mut timetable = Timetable::default();
    let mut under_way: BTreeSet<CheckedKey> = BTreeSet::new();
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
        let now = Instant::now();
        let mut core = agent.core.lock().await;
        for service in std::mem::take(&mut core.uninspected) {
            let keys = checked(&core.state, &service);
            timetable.set_service(&service, &keys, now);
            forget(&mut core, &service, &keys);
        }
        while let Some(key) = timetable.take_due(now) {
            if under_way.contains(&key) {
                timetable.set(key, now + LOOK);
                continue;
            }
            let Some(task) = task(&core, &key) else {
                timetable.set(key, now + UNREACHABLE);
                continue;
            };
            let every = Duration::from_secs(u64::from(task.check.interval));
            timetable.set(key.clone(), now + every);
            under_way.insert(key.clone());
            checks.spawn(async move {
                let outcome = ask(&task).await;
                let outcome = outcome.map_err(|error| text::shown(&format!("{error:#}"), 500));
                (key, task.check, outcome)
            });
        }
    }
}

/// What of a service is no longer checked counts as healthy. One that can't be reached stays as it was.
fn forget(core: &mut Core, service: &Reference, checked: &BTreeSet<CheckedKey>) {
    let mut gone = of_service(&core.healths, service);
    gone.retain(|key| !checked.contains(key));
    for key in &gone {
        core.healths.remove(key);
        core.see_health(key, false);
    }
    if !gone.is_empty() {
        reconcile(core);
    }
}

/// Takes in what a check said.
async fn settle(agent: &Agent, key: CheckedKey, check: &HealthCheck, outcome: Result<(), String>) {
    let mut core = agent.core.lock().await;
    let (service, resource, address) = &key;
    // Meanwhile the check may have been withdrawn, or changed.
    let current = core.state.services.get(service);
    if current.is_none_or(|record| record.object.spec.health_check != *check)
        || !checked(&core.state, service).contains(&key)
    {
        return;
    }
    let health = core.healths.entry(key.clone()).or_default();
    if !health.observe(check, outcome) {
        return;
    }
    if health.unhealthy {
        let error = health.last_error.as_deref().unwrap_or_default();
        warn!("backend {address} of {service}, resource {resource}, is unhealthy: {error}");
    } else {
        info!("backend {address} of {service}, resource {resource}, is healthy");
    }
    let unhealthy = health.unhealthy;
    core.see_health(&key, unhealthy);
    reconcile(&mut core);
}

fn reconcile(core: &mut Core) {
    if let Err(error) = tokio::task::block_in_place(|| core.reconcile()) {
        warn!("the data path does not know of it yet, and is told again: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timetable_has_each_once_and_forgets_with_the_service() {
        let key = |service: &str, last: u8| -> CheckedKey {
            let service = service.parse().unwrap();
            (
                service,
                "default".parse().unwrap(),
                IpAddr::from([10, 1, 0, last]),
            )
        };
        let mut timetable = Timetable::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let shop: Reference = "p/shop".parse().unwrap();
        let both = BTreeSet::from([key("p/shop", 1), key("p/shop", 2)]);
        timetable.set_service(&shop, &both, start);
        timetable.set(key("p/other", 3), later);
        timetable.set(key("p/shop", 2), later);
        assert_eq!(timetable.take_due(start), Some(key("p/shop", 1)));
        assert_eq!(timetable.take_due(start), None);
        assert_eq!(timetable.order.len(), 2);
        timetable.set_service(&shop, &BTreeSet::new(), start);
        assert_eq!(timetable.take_due(later), Some(key("p/other", 3)));
        assert_eq!(timetable.take_due(later), None);
        assert!(timetable.due.is_empty() && timetable.order.is_empty());
    }
}
