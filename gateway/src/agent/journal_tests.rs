//! Whose events push out whose.

use super::*;
use crate::model::{
    Kind, Role,
    event::{Action, Event},
    operations::tests::World,
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn event(number: u64, kind: Kind, action: Action, object: &str) -> Recorded {
    let owner = object.split('/').next().unwrap();
    Recorded {
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

fn labels(number: u64, object: &str) -> Recorded {
    let mut recorded = event(number, Kind::Endpoint, Action::Updated, object);
    recorded.event.fields = vec!["labels".to_owned()];
    recorded
}

/// A request of a consumer's to a service.
fn request(number: u64, object: &str, service: &str) -> Recorded {
    let mut recorded = event(number, Kind::Endpoint, Action::Requested, object);
    recorded.event.service = Some(service.parse().unwrap());
    recorded
}

fn of(tenants: &[&str]) -> Principal {
    let roles = tenants.iter().map(|tenant| (name(tenant), Role::Viewer));
    Principal {
        name: "p".to_owned(),
        identity: "p".to_owned(),
        from: String::new(),
        access: Access::Tenants(roles.collect()),
    }
}

fn seen(journal: &Journal, principal: &Principal) -> Vec<u64> {
    let seen = journal.seen_by(principal, EventId::default());
    seen.map(|recorded| recorded.event.id.ticks() >> 12)
        .collect()
}

fn operator() -> Principal {
    Principal::operator("operator", "socket")
}

fn journal(most: usize) -> Journal {
    Journal::new(Vec::new(), &State::default(), most)
}

#[test]
fn a_flood_of_labels_erases_nobody_elses_trail_nor_what_weighs_more() {
    let mut journal = journal(10);
    journal.append(vec![event(1, Kind::Token, Action::Created, "victim/t")], 1);
    journal.append(vec![event(2, Kind::Token, Action::Created, "hostile/t")], 2);
    let mut by_operator = event(3, Kind::Tenant, Action::Created, "victim");
    by_operator.acting = None;
    journal.append(vec![by_operator], 3);
    for number in 4..10_004 {
        journal.append(vec![labels(number, "hostile/e")], number);
    }
    assert_eq!(seen(&journal, &of(&["victim"])), [1, 3]);
    let own = seen(&journal, &of(&["hostile"]));
    assert_eq!((own.len(), own[0], own[10]), (11, 2, 10_003));
    assert_eq!(seen(&journal, &operator()).len(), 13);
    // What no trail has is gone from memory and is removed from the store with the next change.
    assert_eq!(journal.events.len(), 13);
    let removed = journal.writes(&[]).unwrap();
    assert_eq!((removed.len(), removed[0].expected), (1, 9_993));
}

#[test]
fn a_consumer_that_floods_a_provider_with_requests_pushes_out_its_own() {
    let mut journal = journal(10);
    journal.append(vec![request(1, "quiet/e", "shop/web")], 1);
    let mut decided = request(2, "quiet/e", "shop/web");
    decided.acting = Some(name("shop"));
    decided.decided = true;
    journal.append(vec![decided], 2);
    let mut losses = 0;
    for number in 3..1_003 {
        losses += journal
            .append(vec![request(number, "hostile/e", "shop/web")], number)
            .iter()
            .filter(|(tenant, _)| *tenant == name("shop"))
            .count();
    }
    let provider = seen(&journal, &of(&["shop"]));
    assert_eq!(provider[..2], [1, 2]);
    assert_eq!(provider.len(), 11);
    assert_eq!(losses, 1_000 - 9);
    assert_eq!(seen(&journal, &of(&["quiet"])), [1, 2]);
}

#[test]
fn a_provider_that_decides_in_a_loop_leaves_the_consumers_own_events() {
    let mut journal = journal(10);
    journal.append(vec![request(1, "victim/e", "shop/web")], 1);
    journal.append(vec![event(2, Kind::Token, Action::Created, "victim/t")], 2);
    for number in 3..1_003 {
        let mut decided = request(number, "victim/e", "shop/web");
        decided.acting = Some(name("shop"));
        decided.decided = true;
        journal.append(vec![decided], number);
    }
    let victim = seen(&journal, &of(&["victim"]));
    assert_eq!((victim.len(), &victim[..2]), (12, &[1, 2][..]));
}

#[test]
fn several_trails_are_merged_in_order_and_each_event_is_there_once() {
    let mut journal = journal(10);
    journal.append(vec![request(1, "a/e", "b/s")], 1);
    journal.append(vec![labels(2, "c/e")], 2);
    journal.append(vec![labels(3, "b/e")], 3);
    assert_eq!(seen(&journal, &of(&["a", "b"])), [1, 3]);
    assert_eq!(seen(&journal, &of(&["a", "b", "c"])), [1, 2, 3]);
    assert_eq!(seen(&journal, &of(&["d"])), [0; 0]);
    let after = journal.seen_by(&of(&["a", "b"]), EventId::new(1 << 12, 0));
    assert_eq!(after.count(), 1);
}

#[test]
fn a_deleted_tenants_events_are_the_operators_and_not_its_successors() {
    let world = World::furnished();
    let mut journal = journal(10);
    journal.append(vec![labels(1, "gone/e")], 1);
    journal.forget_tenant(&name("gone"));
    journal.append(vec![labels(2, "gone/e")], 2);
    assert_eq!(seen(&journal, &of(&["gone"])), [2]);
    assert_eq!(seen(&journal, &operator()), [1, 2]);
    // The same after a restart: a tenant sees nothing of before it was created.
    let mut old = labels(1, "consumer/e");
    old.event.at = jiff::Timestamp::from_second(-1).unwrap();
    let events = vec![(old, 1), (labels(2, "consumer/e"), 2)];
    let journal = Journal::new(events, &world.state, 10);
    assert_eq!(seen(&journal, &of(&["consumer"])), [2]);
    assert_eq!(seen(&journal, &operator()), [1, 2]);
}

#[test]
fn a_change_larger_than_a_ring_leaves_its_end() {
    let mut journal = journal(2);
    let new: Vec<Recorded> = (2..6).map(|number| labels(number, "a/e")).collect();
    assert_eq!(journal.writes(&new).unwrap().len(), 2);
    let losses = journal.append(new, 2);
    assert_eq!(losses.len(), 2);
    assert_eq!(seen(&journal, &of(&["a"])), [4, 5]);
    assert_eq!(journal.last(), EventId::new(5 << 12, 0));
}
