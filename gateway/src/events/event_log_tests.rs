//! Tests of evictions between tenants and between classes of events.

use super::*;
use crate::model::{
    Kind, Role,
    event::{Action, Event},
    operations::tests::World,
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn event(number: u64, kind: Kind, action: Action, object: &str) -> StoredEvent {
    let owner = object.split('/').next().unwrap();
    StoredEvent {
        event: Event {
            id: EventId::new(number << 12, 0),
            at: jiff::Timestamp::UNIX_EPOCH,
            action,
            kind,
            object: object.to_owned(),
            service: None,
            link_id: None,
            message: String::new(),
            fields: Vec::new(),
            actor: "somebody".to_owned(),
            from: "socket".to_owned(),
        },
        owner: name(owner),
        acting: Some(name(owner)),
        decided: false,
    }
}

fn labels(number: u64, object: &str) -> StoredEvent {
    let mut recorded = event(number, Kind::Endpoint, Action::Updated, object);
    recorded.event.fields = vec!["labels".to_owned()];
    recorded
}

/// Returns the event of a consumer's request to a service.
fn request(number: u64, object: &str, service: &str) -> StoredEvent {
    let mut recorded = event(number, Kind::Endpoint, Action::Requested, object);
    recorded.event.service = Some(service.parse().unwrap());
    recorded
}

fn viewer_of(tenants: &[&str]) -> Principal {
    let roles = tenants.iter().map(|tenant| (name(tenant), Role::Viewer));
    Principal {
        name: "p".to_owned(),
        identity: "p".to_owned(),
        from: String::new(),
        access: Access::Tenants(roles.collect()),
    }
}

fn visible_numbers(log: &EventLog, principal: &Principal) -> Vec<u64> {
    let visible = log.events_visible_to(principal, EventId::default());
    visible
        .map(|recorded| recorded.event.id.ticks() >> 12)
        .collect()
}

fn operator() -> Principal {
    Principal::operator("operator", "socket")
}

fn empty_log(capacity: usize) -> EventLog {
    EventLog::new(Vec::new(), &State::default(), capacity)
}

#[test]
fn flood_of_label_changes_evicts_neither_other_tenants_events_nor_heavier_classes() {
    let mut log = empty_log(10);
    log.append(vec![event(1, Kind::Token, Action::Created, "victim/t")], 1);
    log.append(vec![event(2, Kind::Token, Action::Created, "hostile/t")], 2);
    let mut by_operator = event(3, Kind::Tenant, Action::Created, "victim");
    by_operator.acting = None;
    log.append(vec![by_operator], 3);
    for number in 4..10_004 {
        log.append(vec![labels(number, "hostile/e")], number);
    }
    assert_eq!(visible_numbers(&log, &viewer_of(&["victim"])), [1, 3]);
    let own = visible_numbers(&log, &viewer_of(&["hostile"]));
    assert_eq!((own.len(), own[0], own[10]), (11, 2, 10_003));
    assert_eq!(visible_numbers(&log, &operator()).len(), 13);
    // An event that no trail holds is gone from memory, and the next change deletes it from the store.
    assert_eq!(log.events.len(), 13);
    let removed = log.writes(&[]).unwrap();
    assert_eq!((removed.len(), removed[0].expected), (1, 9_993));
}

#[test]
fn flood_of_requests_evicts_the_flooding_consumers_own_events() {
    let mut log = empty_log(10);
    log.append(vec![request(1, "quiet/e", "shop/web")], 1);
    let mut decided = request(2, "quiet/e", "shop/web");
    decided.acting = Some(name("shop"));
    decided.decided = true;
    log.append(vec![decided], 2);
    let mut losses = 0;
    for number in 3..1_003 {
        losses += log
            .append(vec![request(number, "hostile/e", "shop/web")], number)
            .iter()
            .filter(|(tenant, _)| *tenant == name("shop"))
            .count();
    }
    let provider = visible_numbers(&log, &viewer_of(&["shop"]));
    assert_eq!(provider[..2], [1, 2]);
    assert_eq!(provider.len(), 11);
    assert_eq!(losses, 1_000 - 9);
    assert_eq!(visible_numbers(&log, &viewer_of(&["quiet"])), [1, 2]);
}

#[test]
fn flood_of_decisions_keeps_the_consumers_own_events() {
    let mut log = empty_log(10);
    log.append(vec![request(1, "victim/e", "shop/web")], 1);
    log.append(vec![event(2, Kind::Token, Action::Created, "victim/t")], 2);
    for number in 3..1_003 {
        let mut decided = request(number, "victim/e", "shop/web");
        decided.acting = Some(name("shop"));
        decided.decided = true;
        log.append(vec![decided], number);
    }
    let victim = visible_numbers(&log, &viewer_of(&["victim"]));
    assert_eq!((victim.len(), &victim[..2]), (12, &[1, 2][..]));
}

#[test]
fn merged_trails_are_ordered_and_without_duplicates() {
    let mut log = empty_log(10);
    log.append(vec![request(1, "a/e", "b/s")], 1);
    log.append(vec![labels(2, "c/e")], 2);
    log.append(vec![labels(3, "b/e")], 3);
    assert_eq!(visible_numbers(&log, &viewer_of(&["a", "b"])), [1, 3]);
    assert_eq!(
        visible_numbers(&log, &viewer_of(&["a", "b", "c"])),
        [1, 2, 3]
    );
    assert_eq!(visible_numbers(&log, &viewer_of(&["d"])), [0; 0]);
    let after = log.events_visible_to(&viewer_of(&["a", "b"]), EventId::new(1 << 12, 0));
    assert_eq!(after.count(), 1);
}

#[test]
fn events_of_a_deleted_tenant_are_visible_to_the_operator_only() {
    let world = World::furnished();
    let mut log = empty_log(10);
    log.append(vec![labels(1, "gone/e")], 1);
    log.remove_tenant(&name("gone"));
    log.append(vec![labels(2, "gone/e")], 2);
    assert_eq!(visible_numbers(&log, &viewer_of(&["gone"])), [2]);
    assert_eq!(visible_numbers(&log, &operator()), [1, 2]);
    // After a restart, too, a tenant sees no event from before its creation.
    let mut old = labels(1, "consumer/e");
    old.event.at = jiff::Timestamp::from_second(-1).unwrap();
    let events = vec![(old, 1), (labels(2, "consumer/e"), 2)];
    let log = EventLog::new(events, &world.state, 10);
    assert_eq!(visible_numbers(&log, &viewer_of(&["consumer"])), [2]);
    assert_eq!(visible_numbers(&log, &operator()), [1, 2]);
}

#[test]
fn change_larger_than_a_ring_keeps_its_newest_events() {
    let mut log = empty_log(2);
    let new: Vec<StoredEvent> = (2..6).map(|number| labels(number, "a/e")).collect();
    assert_eq!(log.writes(&new).unwrap().len(), 2);
    let losses = log.append(new, 2);
    assert_eq!(losses.len(), 2);
    assert_eq!(visible_numbers(&log, &viewer_of(&["a"])), [4, 5]);
    assert_eq!(log.last(), EventId::new(5 << 12, 0));
}
