//! Extractors of a request's content: JSON bodies, query parameters, and names in paths.

use std::{
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
    api::{
        AppState,
        admission::{Admission, BodyPermit},
        authenticate::CallerCredential,
        decode::decode,
        document,
        limits::{BodyClass, BodyLimits},
        response::ApiError,
    },
    events::idempotency::IdempotencyKey,
    model::{Kind, Name, Principal, Problem, ProblemCode, Reference, bounds},
};

/// Time within which a body must have arrived.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A decoded JSON body. The memory that it takes is reserved until the handler has ended.
pub(super) struct JsonBody<T>(pub(super) T, pub(super) BodyPermit);

impl<T: DeserializeOwned + ToSchema + Send + 'static> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, agent: &AppState) -> Result<Self, ApiError> {
        let received = ReceivedBody::from_request(request, agent).await?;
        let (request, (), permit) = received.decode(|_| ()).await?;
        Ok(Self(request, permit))
    }
}

/// A JSON body that creates an object. With an `Idempotency-Key` header a repetition creates nothing.
pub(super) struct IdempotentJson<T> {
    pub(super) request: T,
    idempotency_key: Option<IdempotencyKey>,
    _permit: BodyPermit,
}

impl<T> IdempotentJson<T> {
    /// Takes the key by which a repetition of the request is recognised.
    pub(super) fn take_idempotency_key(&mut self) -> Option<IdempotencyKey> {
        self.idempotency_key.take()
    }
}

impl<T: DeserializeOwned + ToSchema + Send + 'static> FromRequest<AppState> for IdempotentJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, agent: &AppState) -> Result<Self, ApiError> {
        let key = match request.headers().get("idempotency-key") {
            None => None,
            Some(value) => {
                let text = value.to_str().ok();
                let valid = text.filter(|text| (1..=255).contains(&text.len()));
                let text = valid.ok_or_else(|| {
                    let detail = "an Idempotency-Key has 1 to 255 characters of ASCII";
                    Problem::invalid("Idempotency-Key", detail)
                })?;
                Some(text.to_owned())
            }
        };
        let path = request.uri().path().to_owned();
        let received = ReceivedBody::from_request(request, agent).await?;
        let caller = Arc::clone(&received.caller);
        let (request, idempotency_key, permit) = received
            .decode(move |bytes| Some(IdempotencyKey::new(&caller, key.as_deref()?, &path, bytes)))
            .await?;
        Ok(Self {
            request,
            idempotency_key,
            _permit: permit,
        })
    }
}

/// A body as it arrived, from a caller whose credential was checked again after the last byte.
struct ReceivedBody {
    bytes: Vec<u8>,
    limits: BodyLimits,
    caller: Arc<Principal>,
    permit: BodyPermit,
}

impl ReceivedBody {
    async fn from_request(request: Request, agent: &AppState) -> Result<Self, ApiError> {
        let extensions = request.extensions();
        let admission = extensions.get::<Arc<Admission>>().cloned();
        let caller = extensions.get::<Arc<Principal>>().cloned();
        let credential = extensions.get::<CallerCredential>().cloned();
        let (Some(admission), Some(caller), Some(credential)) = (admission, caller, credential)
        else {
            return Err(Problem::new(
                ProblemCode::Internal,
                "internal error: request has no authenticated principal",
            )
            .into());
        };
        caller.require_any_role()?;
        check_json(request.headers())?;
        let class = extensions.get::<BodyClass>().copied();
        let limits = BodyLimits::for_caller(class.unwrap_or(BodyClass::Object), &caller);
        let mut permit = admission.body_permit(&caller);
        let reading = read_body(request, limits.bytes, &mut permit);
        let bytes = tokio::time::timeout(BODY_TIMEOUT, reading)
            .await
            .map_err(|_| {
                Problem::new(
                    ProblemCode::Malformed,
                    "the body did not arrive in time: send it within 30 seconds",
                )
            })??;
        // A body may take long to arrive. A credential that was revoked meanwhile must not change anything.
        credential.expect_unchanged(agent, &caller).await?;
        Ok(Self {
            bytes,
            limits,
            caller,
            permit,
        })
    }

    /// Decodes the body and calls `inspect` with its bytes. A large body is decoded outside the async workers.
    async fn decode<T: DeserializeOwned + ToSchema + Send + 'static, L: Send + 'static>(
        self,
        inspect: impl FnOnce(&[u8]) -> L + Send + 'static,
    ) -> Result<(T, L, BodyPermit), ApiError> {
        let Self {
            bytes,
            limits,
            permit,
            ..
        } = self;
        let is_large = permit.is_large();
        let decode_body = move || -> Result<_, Problem> {
            let mut json = serde_json::Deserializer::from_slice(&bytes);
            bounds::check(&COMPONENTS, &T::name(), &mut json)?;
            let value = decode(&bytes, limits.bounds)?;
            Ok((value, inspect(&bytes), permit))
        };
        if !is_large {
            return Ok(decode_body()?);
        }
        let decoded = tokio::task::spawn_blocking(decode_body).await;
        Ok(decoded.map_err(anyhow::Error::from)??)
    }
}

/// Refuses a body whose `Content-Type` is not JSON. A missing header is accepted.
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
    Err(Problem::new(ProblemCode::Malformed, detail))
}

/// The schemas of all bodies.
static COMPONENTS: LazyLock<Components> =
    LazyLock::new(|| document().components.unwrap_or_default());

/// Reads a body. If its announced length exceeds the limit, none of it is read.
async fn read_body(
    request: Request,
    limit: usize,
    permit: &mut BodyPermit,
) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let detail = format!("the body is larger than {limit} bytes: split the request");
        Problem::new(ProblemCode::TooLarge, detail)
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
                    Problem::new(ProblemCode::Malformed, detail)
                })?,
        };
        let Some(chunk) = next else {
            return Ok(bytes);
        };
        let chunk = chunk.map_err(|error| {
            let detail = format!("the body is incomplete: {error}");
            Problem::new(ProblemCode::Malformed, detail)
        })?;
        let size = bytes.len() + chunk.len();
        if size > limit {
            return Err(too_large().into());
        }
        permit.reserve(size)?;
        bytes.extend_from_slice(&chunk);
    }
}

/// The query parameters of a request.
pub(super) struct QueryParameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(Problem::new(ProblemCode::Malformed, rejection.body_text()).into())
            }
        }
    }
}

/// The parameters of a request's path.
pub(super) struct PathParameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(Problem::new(ProblemCode::Malformed, rejection.body_text()).into())
            }
        }
    }
}

/// Parses a name in a path.
///
/// # Errors
/// [`ProblemCode::NotFound`], since no object can have an invalid name.
pub(super) fn parse_path_name(kind: Kind, text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Problem::not_found(kind, &shown)
    })
}

/// Parses the name in a path of an object that the tenant owns.
///
/// # Errors
/// [`ProblemCode::NotFound`], since no object can have an invalid name.
pub(super) fn parse_path_reference(
    kind: Kind,
    tenant: Name,
    name: &str,
) -> Result<Reference, Problem> {
    match name.parse::<Name>() {
        Ok(name) => Ok(Reference::new(tenant, name)),
        Err(_) => {
            let shown: String = format!("{tenant}/{name}").chars().take(160).collect();
            Err(Problem::not_found(kind, &shown))
        }
    }
}
