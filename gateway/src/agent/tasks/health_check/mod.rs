//! Health checks: the host itself probes backends through the interfaces of their networks. The same task watches the
//! deadlines of draining backends, and reports changes of availability.

mod assess;
mod obstacle;
mod probe;
mod schedule;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use log::{info, warn};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    agent::{
        Agent, availability::AvailabilityTracker, controller::Controller, drain::DrainDeadlines,
    },
    compile::observed::HealthCheckKey,
    model::{
        Reference, State,
        service::{HealthCheck, HealthCheckKind},
        text,
    },
    netlink::Netlink,
};

use obstacle::find_obstacle;
use probe::Probe;
use schedule::{ProbeSchedule, keys_of_service};

/// Interval at which due checks are started.
const SCHEDULER_INTERVAL: Duration = Duration::from_millis(250);

/// Delay before a backend without a next hop is considered again.
const UNREACHABLE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Number of characters of an error that are kept.
const MAX_ERROR_CHARS: usize = 500;

/// Backend, its check, and the outcome.
type Finished = (HealthCheckKey, HealthCheck, Result<(), String>);

/// Scheduled and running checks.
#[derive(Default)]
struct HealthChecker {
    schedule: ProbeSchedule,
    drains: DrainDeadlines,
    availability: AvailabilityTracker,
    in_flight: BTreeSet<HealthCheckKey>,
    checks: JoinSet<Finished>,
}

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut ticks = interval(SCHEDULER_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checker = HealthChecker::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(finished) = checker.checks.join_next() => {
                if let Ok((key, check, outcome)) = finished {
                    checker.in_flight.remove(&key);
                    record_result(&agent, key, &check, outcome).await;
                }
                continue;
            }
        }
        let mut controller = agent.controller.lock().await;
        checker.start_due(&mut controller, &agent.netlink, Instant::now());
        checker.end_drains(&mut controller);
        checker.report_availability(&mut controller, Instant::now());
    }
}

impl HealthChecker {
    /// Takes over changes of services, and starts the checks that are due.
    fn start_due(&mut self, controller: &mut Controller, netlink: &Netlink, now: Instant) {
        for service in std::mem::take(&mut controller.observed.services_to_recheck) {
            let keys = checked_backends(controller.state(), &service);
            self.schedule.set_service(&service, &keys, now);
            drop_unchecked(controller, &service, &keys);
            self.set_drains(controller, &service);
        }
        while let Some(key) = self.schedule.take_due(now) {
            if self.in_flight.contains(&key) {
                self.schedule.set(key, now + SCHEDULER_INTERVAL);
                continue;
            }
            let Some(probe) = Probe::for_backend(controller, &key) else {
                self.schedule.set(key, now + UNREACHABLE_RETRY_INTERVAL);
                continue;
            };
            let every = Duration::from_secs(u64::from(probe.check.interval));
            self.schedule.set(key.clone(), now + every);
            self.in_flight.insert(key.clone());
            let netlink = netlink.clone();
            self.checks.spawn(async move {
                let outcome = match probe.run().await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(describe_failure(&netlink, &probe, &error).await),
                };
                (key, probe.check, outcome)
            });
        }
    }

    /// Takes over the deadlines of a service's draining backends.
    fn set_drains(&mut self, controller: &mut Controller, service: &Reference) {
        let now = Timestamp::now();
        let passed = self.drains.set_service(controller.state(), service, now);
        for key in &passed {
            controller.observe_drained(key, true);
        }
    }

    /// Takes backends out of the data path whose deadline has passed, which ends their flows.
    fn end_drains(&mut self, controller: &mut Controller) {
        let passed = self.drains.take_passed(Timestamp::now());
        for key in &passed {
            let (service, resource, address) = key;
            info!("drain: deadline passed backend={address} service={service} resource={resource}");
            controller.observe_drained(key, true);
        }
        if !passed.is_empty() {
            reconcile_or_warn(controller);
        }
    }

    /// Determines the availability of services that may have changed, and stores events about changes.
    fn report_availability(&mut self, controller: &mut Controller, now: Instant) {
        for service in std::mem::take(&mut controller.observed.services_to_assess) {
            let observations = assess::availability(controller, &service);
            self.availability
                .observe_service(&service, observations, now);
        }
        let state = controller.state();
        self.availability
            .retain(|service| state.services.contains_key(service));
        let changes = self.availability.take_changes(now);
        if changes.is_empty() {
            return;
        }
        // The commit waits for the disk.
        let stored = tokio::task::block_in_place(|| controller.record_availability(&changes));
        if let Err(error) = stored {
            warn!("health check: events not stored, and tried again error=\"{error}\"");
            self.availability.put_back(&changes);
        }
    }
}

/// Returns the error of a probe, with the setting of the host that is in the way, if there is one.
async fn describe_failure(netlink: &Netlink, probe: &Probe, error: &anyhow::Error) -> String {
    let obstacle = find_obstacle(netlink, &probe.interface, probe.server.ip()).await;
    let text = match obstacle {
        Some(obstacle) => format!("{error:#}: {obstacle}"),
        None => format!("{error:#}"),
    };
    text::truncated(&text, MAX_ERROR_CHARS)
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
        if spec.health_check.probe_port(resource).is_some() {
            let backends = resource.backends.iter();
            keys.extend(backends.map(|b| (service.clone(), resource.name.clone(), b.address)));
        }
    }
    keys
}

/// Forgets the health of the service's backends that are no longer checked: they count as healthy. A backend that is
/// checked but can't be reached keeps its health.
fn drop_unchecked(
    controller: &mut Controller,
    service: &Reference,
    checked: &BTreeSet<HealthCheckKey>,
) {
    let mut unchecked = keys_of_service(&controller.observed.backend_health, service);
    unchecked.retain(|key| !checked.contains(key));
    for key in &unchecked {
        controller.observed.backend_health.remove(key);
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
    let current = controller.state().services.get(service);
    if current.is_none_or(|record| record.object.spec.health_check != *check)
        || !checked_backends(controller.state(), service).contains(&key)
    {
        return;
    }
    if outcome.is_err() {
        recheck_next_hop(&mut controller, &key);
    }
    let health = &mut controller.observed.backend_health;
    let health = health.entry(key.clone()).or_default();
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

/// Has the next hop of a backend confirmed, after a check failed: it may have another MAC address by now. All hosts are
/// asked after the first failure only, since a server that is down is no reason for a broadcast with each check.
fn recheck_next_hop(controller: &mut Controller, checked: &HealthCheckKey) {
    let (service, _, address) = checked;
    let Some(record) = controller.state().services.get(service) else {
        return;
    };
    let network = record.object.spec.network.clone();
    let key = (Reference::new(service.tenant.clone(), network), *address);
    let health = controller.observed.backend_health.get(checked);
    let is_first = health.is_none_or(|health| health.last_error.is_none());
    let now = Instant::now();
    controller.observed.next_hops.recheck(&key, is_first, now);
    controller.observed.next_hops_stepped.notify_one();
}

fn reconcile_or_warn(controller: &mut Controller) {
    if let Err(error) = tokio::task::block_in_place(|| controller.reconcile()) {
        warn!("health check: result not in the maps yet error=\"{error:#}\"");
    }
}
