//! Tests of the webhook queue.

use super::*;
use crate::model::{
    OpContext, RandomIdentifiers, event::Event, operations::create_webhook,
    operations::tests::World,
};

/// Returns a world in which tenant `consumer` has a webhook.
fn world() -> World {
    let mut world = World::furnished();
    let mut context = OpContext {
        now: jiff::Timestamp::UNIX_EPOCH,
        actor: "test",
        is_operator: false,
        identifiers: &mut RandomIdentifiers,
        host: &crate::model::HostAddresses::default(),
        host_uses: &crate::model::HostUses::default(),
        event_boundary: EventId::new(10 << 12, 0),
    };
    let request = serde_json::from_value(serde_json::json!({
        "name": "hook", "url": "https://example.com/"
    }));
    let tenant = "consumer".parse().unwrap();
    let changes = create_webhook(
        &world.state,
        &mut context,
        &tenant,
        request.unwrap(),
        String::new(),
    );
    world.state.apply(changes.unwrap(), 99);
    world
}

fn label_change(number: u64) -> StoredEvent {
    StoredEvent {
        event: Event {
            id: EventId::new(number << 12, 0),
            at: jiff::Timestamp::UNIX_EPOCH,
            action: Action::Updated,
            kind: Kind::Endpoint,
            object: "consumer/e".to_owned(),
            service: None,
            link_id: None,
            message: String::new(),
            fields: vec!["labels".to_owned()],
            actor: "somebody".to_owned(),
            from: "socket".to_owned(),
        },
        owner: "consumer".parse().unwrap(),
        acting: Some("consumer".parse().unwrap()),
        decided: false,
    }
}

#[test]
fn lagging_webhook_counts_its_lost_events() {
    let World { state, .. } = world();
    let reference: Reference = "consumer/hook".parse().unwrap();
    let record = &state.webhooks[&reference];
    let mut event_log = EventLog::new(Vec::new(), &state, 5);
    let mut queue = WebhookQueue::default();
    let now = Instant::now();
    // An event from before the webhook was created, which does not count, and the first one to deliver.
    for number in [9, 11] {
        let losses = event_log.append(vec![label_change(number)], number);
        queue.record_evictions(&state, &losses);
    }
    let in_flight = queue.take_due(&state, &event_log, now).deliveries.remove(0);
    assert_eq!(in_flight.recorded.event.id, EventId::new(11 << 12, 0));
    for number in 12..30 {
        let losses = event_log.append(vec![label_change(number)], number);
        queue.record_evictions(&state, &losses);
    }
    // 5 of the events 11 to 29 are left, and 11 is still in flight.
    assert_eq!(queue.status(&reference, record).events_lost, 13);
    assert!(queue.record_outcome(&in_flight, Err("a\u{1b}[2J".to_owned()), now));
    let status = queue.status(&reference, record);
    assert_eq!(status.events_lost, 14);
    assert_eq!(status.last_error.as_deref(), Some("a\\u001b[2J"));
    // The lost events are stored.
    assert_eq!(queue.unsaved(), std::slice::from_ref(&reference));
    let text = queue.cursor_write(&reference).unwrap().value.unwrap();
    let cursor: Cursor = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (cursor.lost, cursor.delivered),
        (14, Some(EventId::new(11 << 12, 0)))
    );
    let later = now + INITIAL_BACKOFF;
    let next = queue
        .take_due(&state, &event_log, later)
        .deliveries
        .remove(0);
    assert_eq!(next.recorded.event.id, EventId::new(25 << 12, 0));
    // A cursor that an earlier version stored.
    let old: Cursor = serde_json::from_str("12").unwrap();
    assert_eq!(old.delivered, Some(EventId::from_number(12)));
}
