//! Traffic task: watches the counters of attachments' interfaces.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use log::warn;
use tokio::time::{MissedTickBehavior, interval};

use crate::{agent::Agent, netlink::received_packets};

/// Interval at which the counters are read: the resolution of the time of the last reception.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let received = match tokio::task::block_in_place(received_packets) {
            Ok(received) => received,
            Err(error) => {
                warn!("traffic: counters of interfaces not read error=\"{error}\"");
                continue;
            }
        };
        let mut controller = agent.controller.lock().await;
        let observed =
            tokio::task::block_in_place(|| controller.observe_traffic(Timestamp::now(), &received));
        if let Err(error) = observed {
            warn!("traffic: counters of drops not read error=\"{error:#}\"");
        }
    }
}
