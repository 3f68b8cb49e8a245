//! Filters of events.

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::model::{Kind, event::Action, event_id::EventId};

/// Filter of events.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// Events after the one with this `id`; unset: the latest events, or with `follow` new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = Uuid, max_length = 36)]
    pub after: Option<EventId>,
    /// Maximum number of events; 100 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Events about objects of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Events with this action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Keep the connection open and send new events as server-sent events, from `Last-Event-ID` on if that is set.
    #[serde(default)]
    #[param(default = false)]
    pub follow: bool,
}
