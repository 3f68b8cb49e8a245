//! Webhook deliveries.

use std::time::Instant;

use crate::{
    agent::controller::Controller,
    events::webhook_queue::{Delivery, DueDeliveries},
    store::StoreError,
};

impl Controller {
    /// Returns the webhook deliveries that are due.
    pub fn due_deliveries(&mut self, now: Instant) -> DueDeliveries {
        let desired = &mut self.desired;
        desired
            .webhook_queue
            .take_due(&desired.state, &desired.event_log, now)
    }

    /// Records the outcome of a delivery.
    ///
    /// # Errors
    /// When the store can't be written: after a restart, the event may be delivered once more.
    pub fn record_delivery(
        &mut self,
        delivery: &Delivery,
        outcome: Result<(), String>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let desired = &mut self.desired;
        if !desired.webhook_queue.record_outcome(delivery, outcome, now) {
            return Ok(());
        }
        if let Some(write) = desired.webhook_queue.cursor_write(&delivery.reference) {
            let revision = desired.store.commit(&[write])?;
            desired
                .webhook_queue
                .cursor_written(&delivery.reference, revision);
        }
        Ok(())
    }
}
