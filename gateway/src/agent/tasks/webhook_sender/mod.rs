//! The webhook sender: delivers events to webhooks at least once, in order, with retries after failures.

mod client;
mod destination;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use log::{info, warn};
use tokio::{task::JoinSet, time::sleep};

use crate::agent::Agent;

pub(crate) use client::WebhookSender;

/// Time to wait for an event when no retry is scheduled.
const MAX_IDLE_WAIT: Duration = Duration::from_secs(3_600);

/// Delivers events to webhooks until the process ends.
pub(crate) async fn run(agent: Arc<Agent>, sender: WebhookSender) {
    let sender = Arc::new(sender);
    let mut last = agent.controller.lock().await.event_log().subscribe();
    let mut sending = JoinSet::new();
    loop {
        last.mark_unchanged();
        let due = {
            let mut controller = agent.controller.lock().await;
            controller.due_deliveries(Instant::now())
        };
        for delivery in due.deliveries {
            let sender = Arc::clone(&sender);
            sending.spawn(async move {
                let outcome = sender.deliver(&delivery).await;
                (delivery, outcome)
            });
        }
        let pause = due.next.map_or(MAX_IDLE_WAIT, |next| {
            next.saturating_duration_since(Instant::now())
        });
        tokio::select! {
            changed = last.changed() => if changed.is_err() {
                return;
            },
            Some(Ok((delivery, outcome))) = sending.join_next() => {
                if let Err(failure) = &outcome {
                    info!("webhook: delivery failed webhook={} reason={failure}", delivery.reference);
                }
                let outcome = outcome.map_err(|failure| failure.public_message());
                let mut controller = agent.controller.lock().await;
                if let Err(error) = controller.record_delivery(&delivery, outcome, Instant::now()) {
                    warn!("webhook: cursor not stored webhook={} error=\"{error}\"", delivery.reference);
                }
            }
            () = sleep(pause) => {}
        }
    }
}
