//! Flow GC task: collects expired flows at an interval, and at once after a revocation.

use std::{sync::Arc, time::Duration};

use log::{debug, info};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    agent::{
        Agent,
        flow_gc::{FlowGc, GcReport},
    },
    inject::frames::TcpTermination,
};

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
        collect(&agent, &mut flow_gc).await;
    }
}

/// Collects once, terminates both ends of revoked TCP flows, and accounts for what connections use.
async fn collect(agent: &Agent, flow_gc: &mut FlowGc) {
    let snapshot = agent.controller.lock().await.gc_snapshot();
    let report = tokio::task::block_in_place(|| flow_gc.collect());
    let now = agent.controller.lock().await.gc_snapshot();
    let terminations = report.terminations(flow_gc.tables(), &now);
    log_report(&report, &terminations);
    tokio::task::block_in_place(|| terminate(agent, &terminations));
    let mut controller = agent.controller.lock().await;
    controller.account_usage(&snapshot, report);
}

fn log_report(report: &GcReport, terminations: &[(u32, TcpTermination)]) {
    if report.removed > 0 {
        debug!("flow gc: entries removed count={}", report.removed);
    }
    if !terminations.is_empty() {
        info!("flow gc: terminating TCP flows ends={}", terminations.len());
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
