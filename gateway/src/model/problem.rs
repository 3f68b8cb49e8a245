//! Refusals: what was wrong, where, and what to do about it. They become RFC 9457 problem documents.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Kind, Name};

/// What kind of refusal it is. Stable: programs may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The request can't be understood.
    Malformed,
    /// A field's value can't be accepted.
    Invalid,
    /// There is no such thing, or not for the one who asks.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// An address or interface is used by something else.
    InUse,
    /// The object changed since it was read.
    VersionConflict,
    /// The connection's state does not allow it.
    WrongState,
    /// Something else still depends on it.
    HasDependents,
    /// A quota or a table has no room left.
    LimitReached,
    /// It is not known who asks.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// The method is not defined for this path.
    MethodNotAllowed,
    /// The body is larger, or holds more, than is taken there.
    TooLarge,
    /// The caller sends more than it may: it is to wait.
    RateLimited,
    /// The gateway has too many large requests under way: the caller is to wait.
    Overloaded,
    /// The store can't be written; nothing was changed.
    StoreUnavailable,
    /// The gateway failed; the journal says more.
    Internal,
}

impl ProblemCode {
    /// The HTTP status that goes with it.
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

    /// The problem's title, the same for every problem of the code.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request can't be understood",
            Self::Invalid => "A value can't be accepted",
            Self::NotFound => "Not found",
            Self::AlreadyExists => "The name is taken",
            Self::InUse => "Used by something else",
            Self::VersionConflict => "The object has changed",
            Self::WrongState => "The connection's state does not allow it",
            Self::HasDependents => "Something still depends on it",
            Self::LimitReached => "A limit is reached",
            Self::Unauthenticated => "Who asks is not known",
            Self::Forbidden => "Not allowed",
            Self::MethodNotAllowed => "Method not allowed",
            Self::TooLarge => "The body is too large",
            Self::RateLimited => "Too many requests",
            Self::Overloaded => "Too many large requests at once",
            Self::StoreUnavailable => "The store can't be written",
            Self::Internal => "The gateway failed",
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// What kind.
    pub code: ProblemCode,
    /// One sentence for the person who asked.
    pub detail: String,
    /// The field at fault, as a path in the request: `resources[0].ports`.
    pub field: Option<String>,
}

impl Problem {
    /// A refusal that concerns no field.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
        }
    }

    /// A value that can't be accepted.
    #[must_use]
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Invalid, detail).at(field)
    }

    /// There is no such object. The same bytes, whether it never was or may not be seen.
    #[must_use]
    pub fn not_found(kind: Kind, name: &impl fmt::Display) -> Self {
        Self::new(ProblemCode::NotFound, format!("there is no {kind} {name}"))
    }

    /// There is no such tenant.
    #[must_use]
    pub fn no_tenant(name: &Name) -> Self {
        Self::not_found(Kind::Tenant, name)
    }

    /// The same refusal, naming the field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}
