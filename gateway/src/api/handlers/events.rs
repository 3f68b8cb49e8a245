//! Events: lists of them, and streams of new ones (server-sent events).

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
use tokio::sync::watch;

use crate::{
    api::{
        AppState,
        admission::{Admission, ConcurrencyPermit},
        authenticate::CallerCredential,
        authorize::Caller,
        page::checked_limit,
        request::QueryParameters,
        response::{ApiError, ReadErrors},
        types::{EventsRequest, Page},
    },
    model::{
        Principal, Problem,
        event::{Event, StoredEvent},
        event_id::EventId,
    },
};

/// Longest time between two checks of a stream's credential. The wall clock may be set meanwhile.
const RECHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Returns true if the filter selects the event.
fn matches(filter: &EventsRequest, stored: &StoredEvent) -> bool {
    let event = &stored.event;
    filter.kind.is_none_or(|kind| kind == event.kind)
        && filter.action.is_none_or(|action| action == event.action)
}

/// List or follow the events that the caller may see.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "list_events", tag = "event",
    params(EventsRequest),
    responses(
        (status = 200, description = "The events, oldest first; with `follow` a stream of events", content(
            (Page<Event> = "application/json"),
            (String = "text/event-stream"),
        )),
        ReadErrors,
    ),
)]
pub(in crate::api) async fn list(
    AgentState(agent): AgentState<AppState>,
    Caller(caller): Caller,
    Extension(caller_credential): Extension<CallerCredential>,
    Extension(admission): Extension<Arc<Admission>>,
    headers: HeaderMap,
    QueryParameters(request): QueryParameters<EventsRequest>,
) -> Result<Response, ApiError> {
    let limit = checked_limit(request.limit)?;
    if request.follow {
        let permit = admission.acquire_stream(&caller)?;
        return follow(agent, caller_credential, permit, &headers, request).await;
    }
    let controller = agent.controller.lock().await;
    let found = controller
        .event_log()
        .events_visible_to(&caller, request.after.unwrap_or_default());
    let seen = found.filter_map(|recorded| select_event(&request, recorded, &caller));
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

/// Returns the event as the principal may see it, if the filter selects it.
fn select_event(
    filter: &EventsRequest,
    stored: &StoredEvent,
    principal: &Principal,
) -> Option<Event> {
    if matches(filter, stored) {
        stored.redacted_for(principal)
    } else {
        None
    }
}

struct EventFollower {
    agent: AppState,
    caller_credential: CallerCredential,
    request: EventsRequest,
    last: EventId,
    watch: watch::Receiver<EventId>,
    _permit: ConcurrencyPermit,
}

async fn follow(
    agent: AppState,
    caller_credential: CallerCredential,
    permit: ConcurrencyPermit,
    headers: &HeaderMap,
    request: EventsRequest,
) -> Result<Response, ApiError> {
    let resumed = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| {
                    Problem::invalid(
                        "Last-Event-ID",
                        "Last-Event-ID is not the id of an event: use the last id of the stream",
                    )
                })?,
        ),
    };
    let controller = agent.controller.lock().await;
    let last = resumed
        .or(request.after)
        .unwrap_or(controller.event_log().last());
    let watch = controller.event_log().subscribe();
    drop(controller);
    let follower = EventFollower {
        agent: Arc::clone(&agent),
        caller_credential,
        request,
        last,
        watch,
        _permit: permit,
    };
    let batches = stream::unfold(follower, async |mut follower| {
        let batch = follower.next().await?;
        Some((stream::iter(batch), follower))
    });
    let events = futures_util::StreamExt::flatten(batches);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response();
    // The connection ends with the stream: a caller whose credential was revoked must not keep it.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    Ok(response)
}

impl EventFollower {
    /// Returns the next events, or `None` once the credential is revoked, has expired, or gives no role.
    async fn next(&mut self) -> Option<Vec<Result<sse::Event, Infallible>>> {
        loop {
            // Every later commit wakes the stream, also one that changes its credential.
            self.watch.mark_unchanged();
            let (batch, expiry) = self.poll_events().await?;
            if !batch.is_empty() {
                let events = batch.iter().filter_map(|event| {
                    let id = event.id.to_string();
                    sse::Event::default().id(id).json_data(event).ok().map(Ok)
                });
                return Some(events.collect());
            }
            let remaining =
                expiry.map(|end| Duration::try_from(end.duration_since(Timestamp::now())));
            let wait = match remaining {
                Some(Ok(left)) => left.min(RECHECK_INTERVAL),
                Some(Err(_)) => Duration::ZERO,
                None => RECHECK_INTERVAL,
            };
            let changed = tokio::time::timeout(wait, self.watch.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return None;
            }
        }
    }

    /// Returns the events since the last call, and the time at which the credential expires.
    async fn poll_events(&mut self) -> Option<(Vec<Event>, Option<Timestamp>)> {
        let CallerCredential { credential, from } = &self.caller_credential;
        credential.verify_in_advance(Timestamp::now());
        let controller = self.agent.controller.lock().await;
        let principal = credential.principal(controller.state(), Timestamp::now(), from)?;
        principal.require_any_role().ok()?;
        let found = controller
            .event_log()
            .events_visible_to(&principal, self.last);
        let batch: Vec<_> = found
            .filter_map(|recorded| select_event(&self.request, recorded, &principal))
            .take(1_000)
            .collect();
        match batch.last() {
            Some(event) => self.last = event.id,
            None => self.last = self.last.max(controller.event_log().last()),
        }
        Some((batch, credential.expiry(controller.state())))
    }
}
