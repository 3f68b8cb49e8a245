//! Host sync: refreshes the host after netlink events, after a failure, and in full at an interval.

use std::{sync::Arc, time::Duration};

use log::warn;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::{agent::Agent, host::dirty_set::HostDirtySet, netlink::NetlinkMonitor};

/// Time for which changes are collected after a refresh of the host, before the next one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Interval of full scans of the host. They find what the kernel did not report because its queue overflowed.
const FULL_RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// Delay before a failed refresh of the host is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>, monitor: NetlinkMonitor) {
    let mut full_resync = interval_at(Instant::now() + FULL_RESYNC_INTERVAL, FULL_RESYNC_INTERVAL);
    full_resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let needs_retry = {
            let controller = agent.controller.lock().await;
            !controller.in_sync() || !controller.observed.host_dirty.is_empty()
        };
        tokio::select! {
            events = monitor.recv() => {
                let observed = &mut agent.controller.lock().await.observed;
                observed.host_dirty.add_events(events, &observed.compiled);
            }
            _ = full_resync.tick() => {
                agent.controller.lock().await.observed.host_dirty = HostDirtySet::resync_all();
            }
            () = sleep(RETRY_INTERVAL), if needs_retry => {}
        }
        if let Err(error) = agent.refresh_host().await {
            warn!("host sync: failed error=\"{error:#}\"");
        }
        sleep(DEBOUNCE).await;
    }
}
