//! Messages that were received since the neighbour table was last updated, reduced to those that matter. Pure.

use std::collections::HashMap;

use crate::neighbour::{MessageKind, Neighbour, NeighbourMessage};

/// Number of messages that one interface may contribute to a round. A flood in one network neither displaces the
/// messages of others, nor makes the update of the table long. Answers come at a lower rate than this, since
/// solicitations are paced.
const MAX_PER_INTERFACE: usize = 256;

/// Messages of neighbours, reduced: for each neighbour the first ARP reply, since the first of several answers wins;
/// the last advertisement that answers a solicitation; and the last of the other messages. An answer is thus not lost
/// among announcements.
#[derive(Debug, Default)]
pub struct Round {
    messages: HashMap<(Neighbour, Class), (u64, NeighbourMessage)>,
    per_interface: HashMap<u32, usize>,
    received: u64,
}

/// Messages of which a round keeps one for each neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    ArpReply,
    Answer,
    Claim,
}

impl Class {
    const fn of(kind: MessageKind) -> Self {
        match kind {
            MessageKind::ArpReply => Self::ArpReply,
            MessageKind::Advertisement {
                solicited: true, ..
            } => Self::Answer,
            MessageKind::Announcement
            | MessageKind::Solicitation
            | MessageKind::Advertisement {
                solicited: false, ..
            } => Self::Claim,
        }
    }
}

impl Round {
    /// Adds a message that an interface has received.
    pub fn add(&mut self, ifindex: u32, message: NeighbourMessage) {
        self.received += 1;
        let class = Class::of(message.kind);
        let key = ((ifindex, message.address), class);
        if let Some(known) = self.messages.get_mut(&key) {
            if class != Class::ArpReply {
                *known = (self.received, message);
            }
            return;
        }
        let count = self.per_interface.entry(ifindex).or_default();
        if *count < MAX_PER_INTERFACE {
            *count += 1;
            self.messages.insert(key, (self.received, message));
        }
    }

    /// Takes the messages out, in the order in which they were received, each with the index of its interface.
    pub fn take(&mut self) -> Vec<(u32, NeighbourMessage)> {
        let round = std::mem::take(self);
        let mut messages: Vec<_> = round.messages.into_iter().collect();
        messages.sort_unstable_by_key(|(_, (number, _))| *number);
        let messages = messages.into_iter();
        messages
            .map(|(((ifindex, _), _), (_, message))| (ifindex, message))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gateway_common::packet::Mac;

    use super::*;

    fn message(address: u32, mac: u8, kind: MessageKind) -> NeighbourMessage {
        NeighbourMessage {
            address: IpAddr::from(address.to_be_bytes()),
            mac: Some(Mac::new([2, 0, 0, 0, 0, mac])),
            kind,
        }
    }

    #[test]
    fn last_claim_of_a_neighbour_stands_for_all() {
        let mut round = Round::default();
        let other = message(2, 9, MessageKind::Announcement);
        round.add(4, message(1, 0, MessageKind::Announcement));
        round.add(4, other);
        for mac in 1..=200 {
            round.add(4, message(1, mac, MessageKind::Announcement));
        }
        // The same address in another network is another neighbour.
        round.add(5, message(1, 1, MessageKind::Announcement));
        let expected = [
            (4, other),
            (4, message(1, 200, MessageKind::Announcement)),
            (5, message(1, 1, MessageKind::Announcement)),
        ];
        assert_eq!(round.take(), expected);
        assert_eq!(round.take(), []);
    }

    #[test]
    fn answers_are_not_lost_among_announcements_and_the_first_arp_reply_wins() {
        let mut round = Round::default();
        let reply = message(1, 1, MessageKind::ArpReply);
        round.add(4, reply);
        round.add(4, message(1, 2, MessageKind::ArpReply));
        let kind = MessageKind::Advertisement {
            solicited: true,
            overrides: true,
        };
        round.add(4, message(2, 1, kind));
        round.add(4, message(1, 3, MessageKind::Announcement));
        round.add(4, message(2, 1, MessageKind::Solicitation));
        let expected = [
            (4, reply),
            (4, message(2, 1, kind)),
            (4, message(1, 3, MessageKind::Announcement)),
            (4, message(2, 1, MessageKind::Solicitation)),
        ];
        assert_eq!(round.take(), expected);
    }

    #[test]
    fn flood_of_one_interface_leaves_room_for_others() {
        let mut round = Round::default();
        for address in 1..=10_000 {
            round.add(4, message(address, 1, MessageKind::Announcement));
        }
        let other = message(1, 1, MessageKind::ArpReply);
        round.add(5, other);
        let messages = round.take();
        assert_eq!(messages.len(), MAX_PER_INTERFACE + 1);
        assert_eq!(messages.last(), Some(&(5, other)));
        // The next round has room again.
        round.add(4, other);
        assert_eq!(round.take(), [(4, other)]);
    }
}
