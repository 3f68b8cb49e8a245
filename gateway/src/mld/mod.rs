//! Multicast listener discovery (MLD, RFC 2710 and RFC 3810) for the solicited-node groups of local addresses, so that
//! a bridge that snoops it forwards neighbour solicitations to the gateway. Pure: the state machine takes queries, and
//! returns the messages to send.
//!
//! The agent sends and receives these messages itself. The kernel's own membership needs IPv6 on the interface, and is
//! bounded by `optmem_max` for each socket.

mod frames;
mod query;

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::RandomState},
    hash::BuildHasher as _,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

pub use query::{Query, QueryVersion};

/// Number of times that a change of membership is reported (RFC 3810, section 9.1: Robustness Variable).
const ROBUSTNESS: u32 = 2;
/// Time between two reports of a change (RFC 3810, section 9.11: Unsolicited Report Interval).
const UNSOLICITED_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time after the last query of MLDv1 for which reports are of MLDv1 (RFC 3810, section 9.12, with the default values).
const OLDER_VERSION_TIMEOUT: Duration = Duration::from_secs(260);
/// Maximum number of groups in a report of MLDv2, which then fits into the minimum MTU of IPv6.
const MAX_RECORDS: usize = 60;
/// Maximum number of messages of an interface at a time, so that the groups of thousands of addresses do not burst.
const MAX_MESSAGES: usize = 50;
/// Maximum number of queries for one group that are taken between two steps. A querier sends one for each group that a
/// listener left, so more are a flood.
const MAX_GROUP_QUERIES: u32 = 16;
/// Minimum of the time over which answers to general queries are spread, whatever delay the query allows: all gateways
/// and hosts of a network answer them.
const MIN_GENERAL_RESPONSE: Duration = Duration::from_secs(1);

/// Kind of a record in a report of MLDv2 (RFC 3810, section 5.2.12), each with an empty list of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// The group is listened to: the answer to a query.
    IsListened = 2,
    /// The group is not listened to any more.
    Left = 3,
    /// The group is listened to from now on.
    Joined = 4,
}

/// Message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MldMessage {
    /// Report of MLDv2.
    ReportV2(Vec<(RecordKind, Ipv6Addr)>),
    /// Report of MLDv1, for one group.
    ReportV1(Ipv6Addr),
    /// Done message of MLDv1, for one group.
    DoneV1(Ipv6Addr),
}

/// Reports of a group that are left, with their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    /// Number of reports of the last change that are left, and the time of the next one; `None` means at once.
    change: (u32, Option<Instant>),
    /// Time of the answer to a query.
    response: Option<Instant>,
}

/// Queries that were taken since the last step.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    general: bool,
    of_groups: u32,
}

/// Memberships of one interface.
#[derive(Debug, Default)]
pub struct MulticastListener {
    groups: BTreeSet<Ipv6Addr>,
    /// Reports that are left, also of groups that were left.
    pending: BTreeMap<Ipv6Addr, Pending>,
    /// Time at which the answer to a general query begins.
    general_response: Option<Instant>,
    /// Group from which on the answer to a general query is still to be sent, if one has begun.
    general_rest: Option<Ipv6Addr>,
    taken: Taken,
    /// Time until which reports are of MLDv1.
    v1_until: Option<Instant>,
    jitter: RandomState,
    queries: u64,
}

impl MulticastListener {
    /// Returns true if nothing was ever joined.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.groups.is_empty() && self.pending.is_empty()
    }

    /// Joins and leaves groups, so that these are the ones that are listened to.
    pub fn set_groups(&mut self, groups: BTreeSet<Ipv6Addr>) {
        let changed: Vec<Ipv6Addr> = self.groups.symmetric_difference(&groups).copied().collect();
        self.groups = groups;
        for group in changed {
            self.announce(group);
        }
    }

    /// Reports all memberships as new, after the interface came back: the bridge may have forgotten them.
    pub fn rejoin(&mut self) {
        for group in self.groups.clone() {
            self.announce(group);
        }
    }

    fn announce(&mut self, group: Ipv6Addr) {
        let pending = Pending {
            change: (ROBUSTNESS, None),
            response: None,
        };
        self.pending.insert(group, pending);
    }

    /// Records a query, which is answered after a random part of its response delay.
    ///
    /// Between two steps one general query is taken, and some for one group. Others are dropped, so that a flood costs
    /// little: a querier repeats its queries.
    pub fn on_query(&mut self, query: Query, now: Instant) {
        if query.version == QueryVersion::V1 {
            self.v1_until = Some(now + OLDER_VERSION_TIMEOUT);
        }
        if let Some(group) = query.group {
            if self.taken.of_groups < MAX_GROUP_QUERIES {
                self.taken.of_groups += 1;
                self.queries += 1;
                self.schedule_response(group, query.max_response, now);
            }
        } else if !self.taken.general {
            self.taken.general = true;
            self.queries += 1;
            let max = query.max_response.max(MIN_GENERAL_RESPONSE);
            let due = now + self.random_delay(None, max);
            let sooner = self.general_response.map_or(due, |other| other.min(due));
            self.general_response = Some(sooner);
        }
    }

    fn schedule_response(&mut self, group: Ipv6Addr, max_response: Duration, now: Instant) {
        if !self.groups.contains(&group) {
            return;
        }
        let due = now + self.random_delay(Some(group), max_response);
        let pending = self.pending.entry(group).or_insert(Pending {
            change: (0, None),
            response: None,
        });
        pending.response = Some(pending.response.map_or(due, |other| other.min(due)));
    }

    fn random_delay(&self, group: Option<Ipv6Addr>, max: Duration) -> Duration {
        let hash = self.jitter.hash_one((group, self.queries));
        max.mul_f64(f64::from(u16::try_from(hash % 1_000).unwrap_or(0)) / 1_000.0)
    }

    fn is_v1(&self, now: Instant) -> bool {
        self.v1_until.is_some_and(|until| now < until)
    }

    /// Returns the messages that are due.
    pub fn step(&mut self, now: Instant) -> Vec<MldMessage> {
        let is_v1 = self.is_v1(now);
        let max_records = MAX_MESSAGES * if is_v1 { 1 } else { MAX_RECORDS };
        let mut records = Vec::new();
        self.taken = Taken::default();
        let is_due = |due: Option<Instant>| due.is_none_or(|due| due <= now);
        self.pending.retain(|group, pending| {
            if records.len() >= max_records {
                return true;
            }
            let is_listened = self.groups.contains(group);
            let (left, next) = pending.change;
            if left > 0 && is_due(next) {
                let kind = if is_listened {
                    RecordKind::Joined
                } else {
                    RecordKind::Left
                };
                records.push((kind, *group));
                pending.change = (left - 1, Some(now + UNSOLICITED_REPORT_INTERVAL));
                // The report of a join answers a query too.
                pending.response = pending.response.filter(|due| *due > now);
            } else if pending.response.is_some_and(|due| due <= now) {
                pending.response = None;
                if is_listened {
                    records.push((RecordKind::IsListened, *group));
                }
            }
            pending.change.0 > 0 || pending.response.is_some()
        });
        self.answer_general_query(now, &mut records, max_records);
        if is_v1 {
            let message = |(kind, group)| match kind {
                RecordKind::Left => MldMessage::DoneV1(group),
                RecordKind::IsListened | RecordKind::Joined => MldMessage::ReportV1(group),
            };
            return records.into_iter().map(message).collect();
        }
        let reports = records.chunks(MAX_RECORDS);
        reports
            .map(|records| MldMessage::ReportV2(records.to_vec()))
            .collect()
    }

    /// Adds the part of the answer to a general query that fits. The rest follows at the next steps, and a query that
    /// comes meanwhile is answered after it.
    fn answer_general_query(
        &mut self,
        now: Instant,
        records: &mut Vec<(RecordKind, Ipv6Addr)>,
        max_records: usize,
    ) {
        if self.general_rest.is_none() && self.general_response.is_some_and(|due| due <= now) {
            self.general_response = None;
            self.general_rest = Some(Ipv6Addr::UNSPECIFIED);
        }
        let Some(first) = self.general_rest else {
            return;
        };
        let mut rest = self.groups.range(first..);
        while records.len() < max_records
            && let Some(group) = rest.next()
        {
            // The reports of a join answer the query too.
            let pending = self.pending.get(group);
            if pending.is_none_or(|pending| pending.change.0 == 0) {
                records.push((RecordKind::IsListened, *group));
            }
        }
        self.general_rest = rest.next().copied();
    }
}

/// Returns the multicast group that neighbour solicitations for the address are sent to (RFC 4291, section 2.7.1).
#[must_use]
pub fn solicited_node_group(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0xff_ffff;
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | low)
}

#[cfg(test)]
mod tests;
