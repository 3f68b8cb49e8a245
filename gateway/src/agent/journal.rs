//! The events of late: kept in the store, with a bound, and here for those who ask.

use std::collections::VecDeque;

use tokio::sync::watch;

use crate::{
    model::event::Recorded,
    store::{StoreError, Write, keys},
};

/// The events, oldest first.
#[derive(Debug)]
pub struct Journal {
    /// With the store's revision at which each was written.
    events: VecDeque<(Recorded, u64)>,
    /// How many are kept.
    most: usize,
    last: watch::Sender<u64>,
}

impl Journal {
    /// From what the store has, in order; later ones are numbered from there on.
    #[must_use]
    pub fn new(events: Vec<(Recorded, u64)>, most: usize) -> Self {
        let last = events.last().map_or(0, |(recorded, _)| recorded.event.id);
        Self {
            events: events.into(),
            most: most.max(1),
            last: watch::channel(last).0,
        }
    }

    /// Takes in other events in the place of these. Numbers up to `last` are not given again.
    pub fn replace(&mut self, events: Vec<(Recorded, u64)>, last: u64) {
        let theirs = events.last().map_or(0, |(recorded, _)| recorded.event.id);
        self.events = events.into();
        self.last.send_replace(last.max(theirs));
    }

    /// How many are kept.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Tells of each new event's number.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The events after number `after`.
    pub fn after(&self, after: u64) -> impl DoubleEndedIterator<Item = &Recorded> {
        let start = self
            .events
            .partition_point(|(recorded, _)| recorded.event.id <= after);
        self.events.range(start..).map(|(recorded, _)| recorded)
    }

    /// The writes that put the events into the store, and take out those that are too many then.
    ///
    /// # Errors
    /// When an event can't be written down.
    pub fn writes(&self, new: &[Recorded]) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::with_capacity(new.len() * 2);
        // Of a change that is larger than the journal only the end is kept.
        let kept = &new[new.len().saturating_sub(self.most)..];
        for recorded in kept {
            writes.push(Write {
                key: keys::event(recorded.event.id),
                expected: 0,
                value: Some(serde_json::to_string(recorded)?),
            });
        }
        let too_many = (self.events.len() + kept.len()).saturating_sub(self.most);
        for (recorded, revision) in self.events.iter().take(too_many) {
            writes.push(Write {
                key: keys::event(recorded.event.id),
                expected: *revision,
                value: None,
            });
        }
        Ok(writes)
    }

    /// Takes in events that the store has.
    pub fn append(&mut self, new: Vec<Recorded>, revision: u64) {
        let Some(last) = new.last().map(|recorded| recorded.event.id) else {
            return;
        };
        let skip = new.len().saturating_sub(self.most);
        let new = new.into_iter().skip(skip);
        self.events.extend(new.map(|recorded| (recorded, revision)));
        let too_many = self.events.len().saturating_sub(self.most);
        self.events.drain(..too_many);
        self.last.send_replace(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Kind,
        event::{Action, Event},
    };

    fn recorded(id: u64) -> Recorded {
        Recorded {
            event: Event {
                id,
                at: jiff::Timestamp::UNIX_EPOCH,
                action: Action::Created,
                kind: Kind::Tenant,
                object: "a".to_owned(),
                service: None,
                link_id: None,
                message: String::new(),
                fields: Vec::new(),
                actor: "operator".to_owned(),
                from: "socket".to_owned(),
            },
            owner: "a".parse().unwrap(),
            acting: None,
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let mut journal = Journal::new(vec![(recorded(4), 9), (recorded(5), 9)], 3);
        let watch = journal.watch();
        assert_eq!(journal.last(), 5);
        let writes = journal.writes(&[recorded(6), recorded(7)]).unwrap();
        let shown: Vec<_> = writes
            .iter()
            .map(|write| (write.value.is_some(), write.expected))
            .collect();
        assert_eq!(shown, [(true, 0), (true, 0), (false, 9)]);
        journal.append(vec![recorded(6), recorded(7)], 10);
        let ids = |after| -> Vec<u64> {
            let events = journal.after(after);
            events.map(|recorded| recorded.event.id).collect()
        };
        assert_eq!(ids(0), [5, 6, 7]);
        assert_eq!(ids(6), [7]);
        assert_eq!(*watch.borrow(), 7);
    }

    #[test]
    fn a_change_larger_than_the_journal_leaves_its_end() {
        let mut journal = Journal::new(vec![(recorded(1), 1)], 2);
        let new: Vec<Recorded> = (2..6).map(recorded).collect();
        let writes = journal.writes(&new).unwrap();
        assert_eq!(writes.iter().filter(|w| w.value.is_some()).count(), 2);
        assert_eq!(writes.iter().filter(|w| w.value.is_none()).count(), 1);
        journal.append(new, 2);
        assert_eq!(journal.after(0).count(), 2);
        assert_eq!(journal.last(), 5);
    }
}
