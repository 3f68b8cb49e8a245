//! Retention of events: the bounded lists that an event is kept in. Pure.
//!
//! The operator and every tenant have an event log of their own. An event log consists of lists of bounded length, one
//! for each [`ActorRelation`] and [`EventClass`], so that a flood of events of one class evicts neither events of
//! another actor nor those of a more important class.

use std::collections::HashMap;

use crate::model::{
    Kind, Name,
    event::{Action, Event, StoredEvent},
};

/// Relation of an event's actor to a tenant that sees the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ActorRelation {
    /// The tenant itself.
    Own,
    /// The gateway's operator.
    Operator,
    /// Another tenant. All other tenants share the space evenly, see
    /// [`EvictionIndex`](crate::model::eviction_index::EvictionIndex).
    OtherParty,
}

/// Class of events that share a bounded list. A role that can cause one class can't evict events that only other
/// roles can cause: a consumer's credential erases neither decisions nor the record of changes to credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventClass {
    /// Changes of access and of what the operator manages: tokens, identities, webhooks, networks, the tenant
    /// itself.
    Access,
    /// Decisions of a provider about connections.
    Decisions,
    /// Creation and deletion of endpoints, with their connection requests.
    Requests,
    /// Changes of services.
    Services,
    /// Changes of labels alone.
    Labels,
    /// Changes of the health of backends, which nobody causes by a request.
    Health,
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
            _ if action.is_about_health() => Self::Health,
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
    /// Returns the relation of the event's actor to the tenant.
    #[must_use]
    pub fn for_viewer(recorded: &StoredEvent, viewer: &Name) -> Self {
        match &recorded.acting {
            None => Self::Operator,
            Some(acting) if acting == viewer => Self::Own,
            Some(_) => Self::OtherParty,
        }
    }
}

/// Returns a flag for each event of one change: true if it is retained in lists of `max` events. Of a change that has
/// more events than a list holds, only the last ones are retained.
#[must_use]
pub fn select_retained(new: &[StoredEvent], max: usize) -> Vec<bool> {
    let mut counts: HashMap<(Option<&Name>, Option<&Name>, EventClass), usize> = HashMap::new();
    let mut keep = vec![false; new.len()];
    for (index, recorded) in new.iter().enumerate().rev() {
        let (cause, class) = (recorded.acting.as_ref(), EventClass::from_event(recorded));
        // The operator's own event log has the operator's events.
        let operator = cause.is_none().then_some(None);
        for viewer in recorded.viewers().map(Some).chain(operator) {
            let count = counts.entry((viewer, cause, class)).or_default();
            *count += 1;
            keep[index] |= *count <= max;
        }
    }
    keep
}
