//! What comes in: bodies, names in paths, the caller.

use std::{
    fmt::Display,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
        request::Parts,
    },
};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;
use utoipa::{ToSchema, openapi::Components};

use crate::{
    agent::requests::Attempt,
    api::{
        Shared,
        admission::{Admission, BodyPermit},
        caller::Presented,
        decode::decode,
        document,
        limits::{BodyClass, BodyLimits},
        response::Refusal,
    },
    model::{Code, Kind, Name, Principal, Problem, Reference, bounds},
};

/// Time within which a body must have arrived.
const PATIENCE: Duration = Duration::from_secs(30);

/// A JSON body, decoded. The room that it takes in memory is held until the handler has ended.
pub(super) struct Body<T>(pub(super) T, pub(super) BodyPermit);

impl<T: DeserializeOwned + ToSchema + Send + 'static> FromRequest<Shared> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, agent: &Shared) -> Result<Self, Refusal> {
        let received = Received::from_request(request, agent).await?;
        let (request, (), permit) = received.decode(|_| ()).await?;
        Ok(Self(request, permit))
    }
}

/// A JSON body that creates something, once if there is an `Idempotency-Key` with it.
pub(super) struct Creation<T> {
    pub(super) request: T,
    attempt: Option<Attempt>,
    _permit: BodyPermit,
}

impl<T> Creation<T> {
    /// Returns what a repetition of the request is recognised by.
    pub(super) fn attempt(&mut self) -> Option<Attempt> {
        self.attempt.take()
    }
}

impl<T: DeserializeOwned + ToSchema + Send + 'static> FromRequest<Shared> for Creation<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, agent: &Shared) -> Result<Self, Refusal> {
        let key = match request.headers().get("idempotency-key") {
            None => None,
            Some(value) => {
                let text = value.to_str().ok();
                let fit = text.filter(|text| (1..=255).contains(&text.len()));
                let text = fit.ok_or_else(|| {
                    let detail = "an Idempotency-Key has 1 to 255 characters of ASCII";
                    Problem::invalid("Idempotency-Key", detail)
                })?;
                Some(text.to_owned())
            }
        };
        let path = request.uri().path().to_owned();
        let received = Received::from_request(request, agent).await?;
        let caller = Arc::clone(&received.caller);
        let (request, attempt, permit) = received
            .decode(move |bytes| Some(Attempt::new(&caller, key.as_deref()?, &path, bytes)))
            .await?;
        Ok(Self {
            request,
            attempt,
            _permit: permit,
        })
    }
}

/// A body as it arrived, of a caller who still is what it was when the request began.
struct Received {
    bytes: Vec<u8>,
    limits: BodyLimits,
    caller: Arc<Principal>,
    permit: BodyPermit,
}

impl Received {
    async fn from_request(request: Request, agent: &Shared) -> Result<Self, Refusal> {
        let extensions = request.extensions();
        let admission = extensions.get::<Arc<Admission>>().cloned();
        let caller = extensions.get::<Arc<Principal>>().cloned();
        let presented = extensions.get::<Presented>().cloned();
        let (Some(admission), Some(caller), Some(presented)) = (admission, caller, presented)
        else {
            return Err(Problem::new(Code::Internal, "the caller is not known").into());
        };
        caller.require_any_role()?;
        check_json(request.headers())?;
        let class = extensions.get::<BodyClass>().copied();
        let limits = BodyLimits::of(class.unwrap_or(BodyClass::Object), &caller);
        let mut permit = admission.body(&caller);
        let reading = collect(request, limits.bytes, &mut permit);
        let bytes = tokio::time::timeout(PATIENCE, reading)
            .await
            .map_err(|_| {
                Problem::new(
                    Code::Malformed,
                    "the body took too long to come: send it faster",
                )
            })??;
        // A body may take long. A credential that was revoked meanwhile must not change anything any more.
        presented.expect_unchanged(agent, &caller).await?;
        Ok(Self {
            bytes,
            limits,
            caller,
            permit,
        })
    }

    /// Decodes the body, off the async workers if it is large, and has `look` look at its bytes.
    async fn decode<T: DeserializeOwned + ToSchema + Send + 'static, L: Send + 'static>(
        self,
        look: impl FnOnce(&[u8]) -> L + Send + 'static,
    ) -> Result<(T, L, BodyPermit), Refusal> {
        let Self {
            bytes,
            limits,
            permit,
            ..
        } = self;
        let large = permit.is_large();
        let work = move || -> Result<_, Problem> {
            let mut json = serde_json::Deserializer::from_slice(&bytes);
            bounds::check(&COMPONENTS, &T::name(), &mut json)?;
            let value = decode(&bytes, limits.bounds)?;
            Ok((value, look(&bytes), permit))
        };
        if !large {
            return Ok(work()?);
        }
        let decoded = tokio::task::spawn_blocking(work).await;
        Ok(decoded.map_err(|error| Problem::new(Code::Internal, error.to_string()))??)
    }
}

/// Refuses a body that says that it is something else than JSON.
fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let json = content_type.is_none_or(|content_type| {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if json {
        return Ok(());
    }
    let detail = "the body must be JSON: set Content-Type to application/json";
    Err(Problem::new(Code::Malformed, detail))
}

/// The schemas of all bodies, made once.
static COMPONENTS: LazyLock<Components> =
    LazyLock::new(|| document().components.unwrap_or_default());

/// Reads a body. One whose announced length is too large is refused before any of it is read.
async fn collect(
    request: Request,
    limit: usize,
    permit: &mut BodyPermit,
) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let detail = format!("the body is larger than the {limit} bytes that are taken here");
        Problem::new(Code::TooLarge, detail)
    };
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit as u64) {
        return Err(too_large().into());
    }
    let mut stream = request.into_body().into_data_stream();
    let mut bytes = Vec::new();
    loop {
        let next = match permit.deadline(bytes.len()) {
            None => stream.next().await,
            Some(deadline) => timeout_at(deadline.into(), stream.next())
                .await
                .map_err(|_| {
                    let detail =
                        "the body arrives too slowly: send large ones at 16 KiB a second or more";
                    Problem::new(Code::Malformed, detail)
                })?,
        };
        let Some(chunk) = next else {
            return Ok(bytes);
        };
        let chunk = chunk.map_err(|error| {
            let detail = format!("the body broke off: {error}");
            Problem::new(Code::Malformed, detail)
        })?;
        let size = bytes.len() + chunk.len();
        if size > limit {
            return Err(too_large().into());
        }
        permit.grow(size)?;
        bytes.extend_from_slice(&chunk);
    }
}

/// Parameters behind the question mark.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(Code::Malformed, rejection.body_text()).into()),
        }
    }
}

/// The parts of the path that stand for something.
pub(super) struct PathParts<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParts<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(Code::Malformed, rejection.body_text()).into()),
        }
    }
}

/// A name in a path. What is no name is the name of nothing.
pub(super) fn name_in_path(kind: Kind, text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Problem::not_found(kind, &shown)
    })
}

/// The name in a path, of something that the tenant has.
pub(super) fn reference_in_path(
    kind: Kind,
    tenant: Name,
    name: &(impl AsRef<str> + Display),
) -> Result<Reference, Problem> {
    match name.as_ref().parse::<Name>() {
        Ok(name) => Ok(Reference::new(tenant, name)),
        Err(_) => {
            let shown: String = format!("{tenant}/{name}").chars().take(160).collect();
            Err(Problem::not_found(kind, &shown))
        }
    }
}
