//! Whose trail an event is part of, and what it shares the room there with. Pure.
//!
//! Every tenant has a trail of its own, and the operator has one. A trail is made of rings of bounded length,
//! one for each [`Side`] that causes events and each [`Class`] of them, so that whoever causes many events of
//! one kind pushes out neither those of another side nor those of more weight.

use std::collections::HashMap;

use crate::model::{
    Kind, Name,
    event::{Action, Event, StoredEvent},
};

/// Who caused an event, as seen by a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ActorRelation {
    /// The tenant itself.
    Own,
    /// The gateway's operator.
    Operator,
    /// Other tenants; they share the room evenly, see [`Ring`](crate::model::ring::Ring).
    OtherParty,
}

/// What events compete for room with one another. Roles that can cause one class can't push out what only
/// other roles cause: a consumer's credential can't erase decisions, nor what was done with credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventClass {
    /// Who may act for a tenant, where its events are sent, and what the operator gives it: tokens,
    /// identities, webhooks, networks, the tenant itself.
    Access,
    /// A provider's decisions about connections.
    Decisions,
    /// Endpoints that come and go, with their requests.
    Requests,
    /// Services.
    Services,
    /// Labels.
    Labels,
}

impl EventClass {
    /// Returns the class of an event.
    #[must_use]
    pub fn from_event(recorded: &StoredEvent) -> Self {
        let Event {
            kind,
            action,
            fields,
            ..
        } = &recorded.event;
        match kind {
            _ if *action == Action::Updated && *fields == ["labels"] => Self::Labels,
            Kind::Tenant | Kind::Network | Kind::Token | Kind::Identity | Kind::Webhook => {
                Self::Access
            }
            Kind::Endpoint if recorded.decided => Self::Decisions,
            Kind::Endpoint => Self::Requests,
            Kind::Service => Self::Services,
        }
    }
}

impl ActorRelation {
    /// Returns who caused an event, as the tenant sees it.
    #[must_use]
    pub fn for_viewer(recorded: &StoredEvent, viewer: &Name) -> Self {
        match &recorded.acting {
            None => Self::Operator,
            Some(acting) if acting == viewer => Self::Own,
            Some(_) => Self::OtherParty,
        }
    }
}

/// Returns which of the events of one change find room where each ring has room for `most`: of a change that
/// is larger than a ring only the end is kept.
#[must_use]
pub fn select_retained(new: &[StoredEvent], max: usize) -> Vec<bool> {
    let mut counts: HashMap<(Option<&Name>, Option<&Name>, EventClass), usize> = HashMap::new();
    let mut keep = vec![false; new.len()];
    for (index, recorded) in new.iter().enumerate().rev() {
        let (cause, class) = (recorded.acting.as_ref(), EventClass::from_event(recorded));
        // The operator's own trail has what the operator does.
        let operator = cause.is_none().then_some(None);
        for viewer in recorded.viewers().map(Some).chain(operator) {
            let count = counts.entry((viewer, cause, class)).or_default();
            *count += 1;
            keep[index] |= *count <= max;
        }
    }
    keep
}
