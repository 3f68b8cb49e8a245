//! Responses: JSON, and problem documents (RFC 9457).

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::IntoResponse,
};
use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};

use uuid::Uuid;

use crate::{
    api::types::ProblemDocument,
    model::{Identifiers as _, Problem, ProblemCode, RandomIdentifiers, text::escaped},
};

/// An error of a request, which becomes a problem document.
#[derive(Debug)]
pub(super) struct ApiError {
    problem: Problem,
    /// Seconds after which a retry may succeed.
    retry_after: Option<u64>,
    /// Id under which the cause of an internal error was logged.
    request_id: Option<Uuid>,
}

/// Header with the id of a request that failed with an internal error.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl ApiError {
    /// Creates an error with a `Retry-After` header.
    pub(super) const fn with_retry_after(problem: Problem, seconds: u64) -> Self {
        Self {
            problem,
            retry_after: Some(seconds),
            request_id: None,
        }
    }
}

impl From<Problem> for ApiError {
    /// Gives an internal error a request id, and logs it under the id.
    fn from(problem: Problem) -> Self {
        let request_id = (problem.code == ProblemCode::Internal).then(|| {
            let request_id = RandomIdentifiers.uid();
            log::error!(
                "api: request failed request_id={request_id} error={:?}",
                problem.detail
            );
            request_id
        });
        Self {
            problem,
            retry_after: None,
            request_id,
        }
    }
}

impl From<anyhow::Error> for ApiError {
    /// Logs the chain of causes under a new request id, and returns an error with the id only. Causes name files, system
    /// calls and addresses of the host, which must not be disclosed to tenants.
    fn from(error: anyhow::Error) -> Self {
        let request_id = RandomIdentifiers.uid();
        log::error!("api: request failed request_id={request_id} error=\"{error:#}\"");
        let detail = format!("internal error: report request id {request_id} to the operator");
        Self {
            problem: Problem::new(ProblemCode::Internal, detail),
            retry_after: None,
            request_id: Some(request_id),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let Problem {
            code,
            detail,
            field,
        } = self.problem;
        let status =
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let document = ProblemDocument {
            kind: "about:blank".to_owned(),
            title: code.title().to_owned(),
            status: status.as_u16(),
            // The detail may repeat text of the request.
            detail: escaped(&detail).into_owned(),
            code,
            field: field.map(|field| escaped(&field).into_owned()),
        };
        let kind = [(CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, Json(document)).into_response();
        if code == ProblemCode::Unauthenticated {
            // RFC 6750, section 3.
            let challenge = HeaderValue::from_static("Bearer realm=\"plgw\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        let request_id = self
            .request_id
            .map(|id| HeaderValue::try_from(id.to_string()));
        if let Some(Ok(value)) = request_id {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }
}

/// The result of a handler.
pub(super) type ApiResult<T> = Result<Json<T>, ApiError>;

/// The result of a handler that creates an object.
pub(super) type CreateResult<T> = Result<(StatusCode, Json<T>), ApiError>;

/// Returns 201 for an object that was created, and 200 for an identical one that existed already.
pub(super) fn create_response<T>(new: bool, view: T) -> (StatusCode, Json<T>) {
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    (status, Json(view))
}

/// Errors of requests that change nothing.
pub(super) struct ReadErrors;

/// Errors of requests that change the state.
pub(super) struct WriteErrors;

fn problem_responses(codes: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let document = || {
        ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("ProblemDocument")))
            .build()
    };
    let responses = codes.iter().map(|(status, description)| {
        let response = ResponseBuilder::new()
            .description(*description)
            .content("application/problem+json", document());
        ((*status).to_owned(), response.build().into())
    });
    responses.collect()
}

const READ_ERRORS: [(&str, &str); 7] = [
    ("400", "The request is malformed"),
    ("401", "The request has no valid credential"),
    ("403", "The caller has no permission for this request"),
    ("404", "Not found, or not visible to the caller"),
    ("422", "A value is invalid"),
    (
        "429",
        "Too many requests, or too many event streams; Retry-After says when to try again",
    ),
    (
        "500",
        "Internal error; the x-request-id header has an id to report to the operator",
    ),
];

const WRITE_ERRORS: [(&str, &str); 3] = [
    ("409", "The request conflicts with the current state"),
    ("413", "The body is too large"),
    (
        "503",
        "The store can't be written, or too many large requests are in progress; nothing was changed",
    ),
];

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&READ_ERRORS)
    }
}

impl IntoResponses for WriteErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = problem_responses(&READ_ERRORS);
        all.extend(problem_responses(&WRITE_ERRORS));
        all
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn internal_errors_disclose_only_a_request_id() {
        let cause = anyhow!("ENOENT").context("can't open /sys/fs/bpf/plgw/USAGE");
        let response = ApiError::from(cause).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let id = response.headers()[REQUEST_ID].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let document: ProblemDocument = serde_json::from_slice(&body).unwrap();
        assert_eq!(document.code, ProblemCode::Internal);
        assert_eq!(
            document.detail,
            format!("internal error: report request id {id} to the operator")
        );
        let text = String::from_utf8_lossy(&body);
        assert!(!text.contains("/sys") && !text.contains("ENOENT"), "{text}");
    }
}
