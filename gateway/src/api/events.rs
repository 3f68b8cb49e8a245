//! Events: what was changed, by whom; as they happen where that is asked for.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State as AgentState,
    http::{HeaderMap, HeaderValue, header::CONNECTION},
    response::{
        IntoResponse as _, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::IntoParams;

use crate::{
    api::{
        Shared,
        admission::{Admission, Place},
        caller::{Caller, Presented},
        page::{Page, checked_limit},
        request::Parameters,
        response::{LookProblems, Refusal},
    },
    model::{
        Kind, Principal, Problem,
        event::{Action, Event, Recorded},
        event_id::EventId,
    },
};

/// Longest time between two looks at a stream's credential, in case that the clock was set.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Which events are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// Those after the event with this `id`; unset: the last ones, or with `follow` those that come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = Uuid, max_length = 36)]
    pub after: Option<EventId>,
    /// How many at the most; 100 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Those about one kind of object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Those in which this happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Stay, and send them as they happen, as server-sent events; `Last-Event-ID` is heeded.
    #[serde(default)]
    #[param(default = false)]
    pub follow: bool,
}

impl EventsRequest {
    fn wants(&self, recorded: &Recorded) -> bool {
        let event = &recorded.event;
        self.kind.is_none_or(|kind| kind == event.kind)
            && self.action.is_none_or(|action| action == event.action)
    }
}

/// List or follow the events that the caller may see.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "list_events", tag = "event",
    params(EventsRequest),
    responses(
        (status = 200, description = "The events, oldest first; with `follow` a stream of them", content(
            (Page<Event> = "application/json"),
            (String = "text/event-stream"),
        )),
        LookProblems,
    ),
)]
pub(super) async fn list(
    AgentState(agent): AgentState<Shared>,
    Caller(caller): Caller,
    Extension(presented): Extension<Presented>,
    Extension(admission): Extension<Arc<Admission>>,
    headers: HeaderMap,
    Parameters(request): Parameters<EventsRequest>,
) -> Result<Response, Refusal> {
    let limit = checked_limit(request.limit)?;
    if request.follow {
        let place = admission.stream(&caller)?;
        return follow(agent, presented, place, &headers, request).await;
    }
    let core = agent.core.lock().await;
    let found = core
        .journal
        .seen_by(&caller, request.after.unwrap_or_default());
    let seen = found.filter_map(|recorded| wanted(&request, recorded, &caller));
    let (items, next) = if request.after.is_some() {
        let mut seen = seen.peekable();
        let items: Vec<Event> = seen.by_ref().take(limit).collect();
        let more = seen.peek().is_some();
        let last = items.last().filter(|_| more);
        let next = last.map(|event| event.id.to_string());
        (items, next)
    } else {
        let mut items: Vec<Event> = seen.rev().take(limit).collect();
        items.reverse();
        (items, None)
    };
    Ok(Json(Page { items, next }).into_response())
}

fn wanted(request: &EventsRequest, recorded: &Recorded, principal: &Principal) -> Option<Event> {
    if request.wants(recorded) {
        recorded.seen_by(principal)
    } else {
        None
    }
}

struct Follower {
    agent: Shared,
    presented: Presented,
    request: EventsRequest,
    last: EventId,
    watch: watch::Receiver<EventId>,
    _place: Place,
}

async fn follow(
    agent: Shared,
    presented: Presented,
    place: Place,
    headers: &HeaderMap,
    request: EventsRequest,
) -> Result<Response, Refusal> {
    let resumed = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Problem::invalid("Last-Event-ID", "it must be an event's id"))?,
        ),
    };
    let core = agent.core.lock().await;
    let last = resumed.or(request.after).unwrap_or(core.journal.last());
    let watch = core.journal.watch();
    drop(core);
    let follower = Follower {
        agent: Arc::clone(&agent),
        presented,
        request,
        last,
        watch,
        _place: place,
    };
    let batches = stream::unfold(follower, async |mut follower| {
        let batch = follower.next().await?;
        Some((stream::iter(batch), follower))
    });
    let events = futures_util::StreamExt::flatten(batches);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response();
    // The connection ends with the stream: its place is not kept for a caller that was turned away.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    Ok(response)
}

impl Follower {
    /// Returns the next events; none once the credential is revoked, has expired, or gives no role any more.
    async fn next(&mut self) -> Option<Vec<Result<sse::Event, Infallible>>> {
        loop {
            // Whatever is committed from here on wakes the stream again: changes of its credential, too.
            self.watch.mark_unchanged();
            let (batch, expiry) = self.look().await?;
            if !batch.is_empty() {
                let events = batch.iter().filter_map(|event| {
                    let id = event.id.to_string();
                    sse::Event::default().id(id).json_data(event).ok().map(Ok)
                });
                return Some(events.collect());
            }
            let left = expiry.map(|end| Duration::try_from(end.duration_since(Timestamp::now())));
            let wait = match left {
                Some(Ok(left)) => left.min(LOOK_AGAIN),
                Some(Err(_)) => Duration::ZERO,
                None => LOOK_AGAIN,
            };
            let changed = tokio::time::timeout(wait, self.watch.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return None;
            }
        }
    }

    /// Returns the events since the last look, and the time at which the credential expires.
    async fn look(&mut self) -> Option<(Vec<Event>, Option<Timestamp>)> {
        let Presented { credential, from } = &self.presented;
        credential.prepare(Timestamp::now());
        let core = self.agent.core.lock().await;
        let principal = credential.principal(&core.state, Timestamp::now(), from)?;
        principal.require_any_role().ok()?;
        let found = core.journal.seen_by(&principal, self.last);
        let batch: Vec<_> = found
            .filter_map(|recorded| wanted(&self.request, recorded, &principal))
            .take(1_000)
            .collect();
        match batch.last() {
            Some(event) => self.last = event.id,
            None => self.last = self.last.max(core.journal.last()),
        }
        Some((batch, credential.expiry(&core.state)))
    }
}
