//! What comes in: bodies, names in paths, the caller.

use std::fmt::Display;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{header::CONTENT_TYPE, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::{
    api::response::Refusal,
    model::{Code, Kind, Name, Problem, Reference},
};

/// The largest body, in bytes.
pub(super) const MOST_BODY: usize = 1 << 20;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
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
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                if rejection.status().as_u16() == 413 {
                    let detail = format!("the body is larger than {MOST_BODY} bytes");
                    Problem::new(Code::TooLarge, detail)
                } else {
                    Problem::new(Code::Malformed, rejection.body_text())
                }
            })?;
        // Every body is an object; serde would take an array of a struct's fields as well.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            let detail = "the body must be a JSON object: { ... }";
            return Err(Problem::new(Code::Malformed, detail).into());
        }
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            // A broken text has no path, or one that ends in a question mark.
            let path = error.path().to_string();
            let problem = Problem::new(Code::Malformed, error.into_inner().to_string());
            if matches!(path.as_str(), "." | "?") {
                problem
            } else {
                problem.at(path)
            }
        })?;
        reader.end().map_err(|error| {
            Problem::new(Code::Malformed, format!("behind the JSON value: {error}"))
        })?;
        Ok(Self(value))
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

/// Tenant and name in a path.
pub(super) fn reference_in_path(
    kind: Kind,
    (tenant, name): &(impl AsRef<str> + Display, impl AsRef<str> + Display),
) -> Result<Reference, Problem> {
    let owner = name_in_path(Kind::Tenant, tenant.as_ref())?;
    let name = name.as_ref().parse::<Name>().map_err(|_| {
        let shown: String = format!("{tenant}/{name}").chars().take(160).collect();
        Problem::not_found(kind, &shown)
    })?;
    Ok(Reference::new(owner, name))
}
