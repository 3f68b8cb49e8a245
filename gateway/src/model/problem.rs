//! Problems: refusals of requests with a code, a sentence and the field at fault. The API shows them as problem details
//! (RFC 9457).

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Kind, Name};

/// Code of a problem. Stable: programs may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The request can't be parsed.
    Malformed,
    /// A field's value can't be accepted.
    Invalid,
    /// The object does not exist, or is not visible to the caller.
    NotFound,
    /// An object of this name exists.
    AlreadyExists,
    /// An address, interface or alias is in use by another object.
    InUse,
    /// The object changed since it was read.
    VersionConflict,
    /// The connection's state does not allow it.
    WrongState,
    /// Other objects still depend on the object.
    HasDependents,
    /// A quota or a table is exhausted.
    LimitReached,
    /// The request has no valid credentials.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// The method is not defined for this path.
    MethodNotAllowed,
    /// The body is larger, or has more entries, than the path accepts.
    TooLarge,
    /// The caller exceeds its request rate and has to wait.
    RateLimited,
    /// The gateway is processing too many large requests, and the caller has to wait.
    Overloaded,
    /// The store can't be written. Nothing was changed.
    StoreUnavailable,
    /// Internal error. The system journal has the details.
    Internal,
}

impl ProblemCode {
    /// Returns the HTTP status of the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Invalid => 422,
            Self::NotFound => 404,
            Self::AlreadyExists
            | Self::InUse
            | Self::VersionConflict
            | Self::WrongState
            | Self::HasDependents
            | Self::LimitReached => 409,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::StoreUnavailable | Self::Overloaded => 503,
            Self::Internal => 500,
        }
    }

    /// Returns the title that every problem of the code has.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request can't be parsed",
            Self::Invalid => "Invalid value",
            Self::NotFound => "Not found",
            Self::AlreadyExists => "The name is in use",
            Self::InUse => "In use by another object",
            Self::VersionConflict => "The object has changed",
            Self::WrongState => "The connection's state does not allow it",
            Self::HasDependents => "Other objects depend on the object",
            Self::LimitReached => "A limit is reached",
            Self::Unauthenticated => "Not authenticated",
            Self::Forbidden => "Forbidden",
            Self::MethodNotAllowed => "Method not allowed",
            Self::TooLarge => "The body is too large",
            Self::RateLimited => "Too many requests",
            Self::Overloaded => "Too many large requests at once",
            Self::StoreUnavailable => "The store can't be written",
            Self::Internal => "Internal error",
        }
    }
}

/// Refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// Code of the problem.
    pub code: ProblemCode,
    /// Sentence for the caller: the cause and the remedy.
    pub detail: String,
    /// Field at fault, as a path in the request: `resources[0].ports`.
    pub field: Option<String>,
}

impl Problem {
    /// Creates a problem that concerns no field.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
        }
    }

    /// Creates a problem for an invalid value.
    #[must_use]
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Invalid, detail).at(field)
    }

    /// Creates a problem for an object that is not found. The text is the same for an object that does not exist and
    /// one that the caller may not see.
    #[must_use]
    pub fn not_found(kind: Kind, name: &impl fmt::Display) -> Self {
        Self::new(ProblemCode::NotFound, format!("there is no {kind} {name}"))
    }

    /// Creates a problem for a tenant that is not found.
    #[must_use]
    pub fn no_tenant(name: &Name) -> Self {
        Self::not_found(Kind::Tenant, name)
    }

    /// Returns the problem with the field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}
