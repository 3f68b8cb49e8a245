//! What comes in: bodies, names in paths, the caller.

use std::{fmt::Display, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{header::CONTENT_TYPE, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    agent::requests::Attempt,
    api::response::Refusal,
    model::{Code, Kind, Name, Principal, Problem, Reference},
};

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = bytes_of(request, state).await?;
        Ok(Self(read(&bytes)?))
    }
}

/// A JSON body that creates something, once if there is an `Idempotency-Key` with it.
pub(super) struct Creation<T> {
    pub(super) request: T,
    key: Option<String>,
    path: String,
    bytes: Bytes,
}

impl<T> Creation<T> {
    /// What to recognise a repetition by.
    pub(super) fn attempt(&self, caller: &Principal) -> Option<Attempt> {
        let key = self.key.as_deref()?;
        Some(Attempt::new(caller, key, &self.path, &self.bytes))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Creation<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
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
        let bytes = bytes_of(request, state).await?;
        Ok(Self {
            request: read(&bytes)?,
            key,
            path,
            bytes,
        })
    }
}

/// The body of a request that says that it is JSON.
pub(super) async fn bytes_of<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, Refusal> {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let json = content_type.is_none_or(|content_type| {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if !json {
        let detail = "the body must be JSON: set Content-Type to application/json";
        return Err(Problem::new(Code::Malformed, detail).into());
    }
    let bytes = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state)).await;
    let bytes =
        bytes.map_err(|_| Problem::new(Code::Malformed, "the body took too long to come"))?;
    Ok(bytes.map_err(|rejection| {
        if rejection.status().as_u16() == 413 {
            Problem::new(Code::TooLarge, "the body is larger than what is taken here")
        } else {
            Problem::new(Code::Malformed, rejection.body_text())
        }
    })?)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Problem::new(Code::Malformed, format!("the body is no JSON: {error}")))?;
    // Every body is an object; serde would take an array of a struct's fields as well.
    if !value.is_object() {
        let detail = "the body must be a JSON object: { ... }";
        return Err(Problem::new(Code::Malformed, detail));
    }
    whole_numbers(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let problem = Problem::new(Code::Invalid, error.into_inner().to_string());
        if matches!(path.as_str(), "." | "?") {
            problem
        } else {
            problem.at(path)
        }
    })
}

/// JSON has one kind of numbers: 7.0 is a whole one.
fn whole_numbers(value: &mut Value) {
    const MOST: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() <= MOST
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "checked in the lines before"
                )]
                let whole = float as i64;
                *value = whole.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
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
