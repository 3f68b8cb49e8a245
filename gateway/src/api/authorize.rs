//! Authorization: extractors that refuse callers without the required permission, before a request's body is read.

use std::{marker::PhantomData, sync::Arc};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

use crate::{
    api::{request::parse_path_name, response::ApiError},
    model::{Kind, Name, Permission, Principal, Problem, ProblemCode},
};

/// Extractor of the authenticated caller.
pub(super) struct Caller(pub(super) Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let principal = parts.extensions.get::<Arc<Principal>>().cloned();
        principal.map(Self).ok_or_else(|| {
            Problem::new(
                ProblemCode::Internal,
                "internal error: request has no authenticated principal",
            )
            .into()
        })
    }
}

/// Extractor of a caller that is the operator.
pub(super) struct Operator(pub(super) Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Caller(principal) = Caller::from_request_parts(parts, state).await?;
        principal.require_operator()?;
        Ok(Self(principal))
    }
}

/// A permission that a route requires of its caller.
pub(super) trait RequiredPermission {
    /// The permission.
    const PERMISSION: Permission;
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;
        impl RequiredPermission for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )*};
}

permissions! {
    /// [`Permission::Read`] as a type.
    Read
    /// [`Permission::Endpoints`] as a type.
    Endpoints
    /// [`Permission::Services`] as a type.
    Services
    /// [`Permission::Decisions`] as a type.
    Decisions
    /// [`Permission::ManageGateway`] as a type.
    ManageGateway
    /// [`Permission::ManageCredentials`] as a type.
    ManageCredentials
}

/// Extractor of the tenant in the path, for a caller that has the permission in it.
pub(super) struct Authorized<P> {
    pub(super) caller: Arc<Principal>,
    pub(super) tenant: Name,
    permission: PhantomData<P>,
}

impl<S: Send + Sync, P: RequiredPermission> FromRequestParts<S> for Authorized<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Caller(caller) = Caller::from_request_parts(parts, state).await?;
        let path = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::new(ProblemCode::Malformed, rejection.body_text()))?;
        let tenant = path.iter().find(|(name, _)| *name == "tenant");
        let tenant = parse_path_name(Kind::Tenant, tenant.map_or("", |(_, value)| value))?;
        caller.require(&tenant, P::PERMISSION)?;
        Ok(Self {
            caller,
            tenant,
            permission: PhantomData,
        })
    }
}
