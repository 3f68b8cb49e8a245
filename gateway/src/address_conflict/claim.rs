//! Claim of one address: its phase, the hosts that contest it, and the time of its next step. Pure.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use gateway_common::packet::Mac;

/// Time after a conflict until the address is probed again (RFC 5227, section 2.1.1: after ten conflicts, at most
/// one attempt a minute).
pub(super) const RETRY_AFTER_CONFLICT: Duration = Duration::from_secs(60);
/// Minimum time until an address is probed again that another host probed at the same time. A random part of up to the
/// same length is added, so that two hosts do not collide again (RFC 5227, section 2.1.1: PROBE_WAIT).
pub(super) const RETRY_AFTER_PROBE: Duration = Duration::from_secs(1);
/// Number of times that probes of other hosts interrupt the probing of an address. A host that goes on probing without
/// ever answering one does not use the address.
pub(super) const MAX_PROBE_CONFLICTS: u32 = 3;
/// Minimum time between two defences of an address (RFC 5227, section 2.4: DEFEND_INTERVAL).
pub(super) const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Time for which a conflict is shown after it was last seen.
pub(super) const CONFLICT_TTL: Duration = Duration::from_secs(60);

/// Number of announcements of an address (RFC 5227, section 1.1: ANNOUNCE_NUM; RFC 4861, section 10:
/// MAX_NEIGHBOR_ADVERTISEMENT).
pub(super) const fn announcement_count(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 3,
    }
}

/// Time between two announcements of an address (RFC 5227, section 1.1: ANNOUNCE_INTERVAL; RFC 4861, section 10:
/// RETRANS_TIMER).
pub(super) const fn announcement_interval(address: IpAddr) -> Duration {
    match address {
        IpAddr::V4(_) => Duration::from_secs(2),
        IpAddr::V6(_) => Duration::from_secs(1),
    }
}

/// Use of a claimed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// Address of an endpoint.
    Endpoint,
    /// SNAT address of a service.
    Snat,
}

/// Evidence that another host uses an address, or wants to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictEvidence {
    /// The host has sent a message from the address, or an advertisement of it.
    Use,
    /// The host has asked all others for the address, as a host does that is about to use it.
    Probe,
}

/// Phase of an address in conflict detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimPhase {
    /// Number of sent probes, and the time of the next step.
    Probing(u32, Due),
    /// The address is in use. Number of sent announcements, and the time of the next one.
    Claimed(u32, Due),
    /// Another host has the address, or probes for it. Time at which it is probed again.
    Backoff(Instant),
}

/// Another host that uses the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConflictingHost {
    pub(super) mac: Mac,
    pub(super) last_seen: Instant,
    pub(super) defended: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressClaim {
    pub(super) kind: ClaimKind,
    pub(super) phase: ClaimPhase,
    pub(super) conflict: Option<ConflictingHost>,
    /// Number of times that another host's probe has interrupted the probing.
    pub(super) probe_conflicts: u32,
    /// Position in the schedule, if the address is scheduled.
    pub(super) due: Option<Due>,
}

/// Time at which an address needs a step; `None` means at once.
pub(super) type Due = Option<Instant>;

impl AddressClaim {
    pub(super) const fn new(kind: ClaimKind, phase: ClaimPhase) -> Self {
        Self {
            kind,
            phase,
            conflict: None,
            probe_conflicts: 0,
            due: None,
        }
    }

    /// Returns true if the address is in use.
    pub(super) const fn is_claimed(&self) -> bool {
        matches!(self.phase, ClaimPhase::Claimed(..))
    }

    /// Returns the time of the next step, if there is one.
    pub(super) fn next_due(&self, address: IpAddr) -> Option<Due> {
        let phase_due = match self.phase {
            ClaimPhase::Probing(_, next) => Some(next),
            ClaimPhase::Claimed(sent, next) => (sent < announcement_count(address)).then_some(next),
            ClaimPhase::Backoff(again) => Some(Some(again)),
        };
        let conflict_due = self.conflict.filter(|_| self.is_claimed()).map(|rival| {
            let expires = rival.last_seen + CONFLICT_TTL;
            match rival.defended {
                None => None,
                Some(at) if at < rival.last_seen => Some(expires.min(at + DEFEND_INTERVAL)),
                Some(_) => Some(expires),
            }
        });
        match (phase_due, conflict_due) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}
