//! What goes out: JSON, and problem documents (RFC 9457).

use axum::{
    Json,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::model::{Code, Problem};

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// Always `about:blank`: the code tells what it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong here, and what to do.
    pub detail: String,
    /// What kind of problem it is; stable.
    pub code: Code,
    /// The field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        log::error!("{error:#}");
        Self(Problem::new(Code::Internal, format!("{error:#}")))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Problem {
            code,
            detail,
            field,
        } = self.0;
        let status =
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let document = ProblemDocument {
            kind: "about:blank".to_owned(),
            title: code.title().to_owned(),
            status: status.as_u16(),
            detail,
            code,
            field,
        };
        (
            status,
            [(CONTENT_TYPE, "application/problem+json")],
            Json(document),
        )
            .into_response()
    }
}

/// What a handler returns.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// What one that creates something returns.
pub(super) type Created<T> = Result<(StatusCode, Json<T>), Refusal>;

/// Says that something was created.
pub(super) fn created<T>(view: T) -> (StatusCode, Json<T>) {
    (StatusCode::CREATED, Json(view))
}
