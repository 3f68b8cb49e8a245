//! Flow GC task: collects expired flows at an interval, and at once after a revocation.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use log::{debug, info, warn};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    agent::{
        Agent,
        flow_gc::{FlowGc, GcReport},
    },
    inject::frames::TcpTermination,
};

/// Delay before flows are collected again that were too young to judge: a little more than one unit of
/// [`gateway_common::flow::CoarseTime`].
const FLOW_RECHECK_DELAY: Duration = Duration::from_millis(1_100);

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>, mut flow_gc: FlowGc, every: Duration) {
    let flows_revoked = agent.controller.lock().await.flows_revoked();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = flows_revoked.notified() => {}
        }
        if let Err(error) = collect(&agent, &mut flow_gc, &flows_revoked).await {
            warn!("flow gc: failed error=\"{error:#}\"");
        }
    }
}

/// Collects once, terminates both ends of revoked TCP flows, and accounts for what connections use.
async fn collect(agent: &Agent, flow_gc: &mut FlowGc, flows_revoked: &Arc<Notify>) -> Result<()> {
    let mut snapshot = agent.controller.lock().await.gc_snapshot();
    let mut report = tokio::task::block_in_place(|| flow_gc.count_and_collect(&mut snapshot))?;
    log_report(&report);
    let terminations = std::mem::take(&mut report.terminations);
    tokio::task::block_in_place(|| terminate(agent, &terminations));
    if report.needs_recheck {
        let flows_revoked = Arc::clone(flows_revoked);
        tokio::spawn(async move {
            sleep(FLOW_RECHECK_DELAY).await;
            flows_revoked.notify_one();
        });
    }
    let mut controller = agent.controller.lock().await;
    tokio::task::block_in_place(|| controller.account_usage(&snapshot, report))
        .context("failed to account for the usage of connections")
}

fn log_report(report: &GcReport) {
    if report.removed > 0 {
        debug!("flow gc: entries removed count={}", report.removed);
    }
    if !report.terminations.is_empty() {
        info!(
            "flow gc: terminating TCP flows ends={}",
            report.terminations.len()
        );
    }
}

fn terminate(agent: &Agent, terminations: &[(u32, TcpTermination)]) {
    // All resets go first, so that answers to the challenge ACK probes do not wait behind other flows' resets.
    for (ifindex, termination) in terminations {
        agent.send_frame(*ifindex, &termination.reset());
    }
    for (ifindex, termination) in terminations {
        agent.send_frame(*ifindex, &termination.challenge_ack_probe());
    }
}
