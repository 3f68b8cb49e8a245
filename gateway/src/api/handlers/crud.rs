//! HTTP resources of objects that a tenant owns: list, create, show, update and delete.
//!
//! The functions hold the logic of the requests. [`crud!`] declares the handlers of one kind of object with their
//! OpenAPI attributes.

use std::collections::BTreeMap;

use axum::{Json, http::StatusCode};

use crate::{
    agent::controller::Controller,
    api::{
        AppState,
        authorize::{Authorized, Read},
        present::ServiceAvailability,
        request::parse_path_reference,
        response::{ApiError, ApiResult, CreateResult, create_response},
        types::{Page, PageRequest},
    },
    events::idempotency::IdempotencyKey,
    model::{
        Change, Kind, Name, OpContext, Principal, Problem, Record, Reference, State,
        operations::{Policy, required_name},
    },
};

/// A kind of object that a tenant owns.
pub(super) trait TenantObject: Sized {
    /// The kind.
    const KIND: Kind;
    /// Content of a request that creates or changes an object.
    type Request: Send;
    /// Representation of an object in responses.
    type View;
    /// Options of a deletion.
    type DeleteOptions: Send;

    /// Returns all objects of the kind.
    fn table(state: &State) -> &BTreeMap<Reference, Record<Self>>;

    /// Returns the view of an object.
    ///
    /// # Errors
    /// If its counters can't be read.
    fn present(
        controller: &Controller,
        caller: &Principal,
        reference: &Reference,
        record: &Record<Self>,
    ) -> anyhow::Result<Self::View>;

    /// Returns the view of an object as an item of a list.
    ///
    /// # Errors
    /// If its counters can't be read.
    fn present_in_list(
        controller: &Controller,
        caller: &Principal,
        reference: &Reference,
        record: &Record<Self>,
        _: &mut ServiceAvailability,
    ) -> anyhow::Result<Self::View> {
        Self::present(controller, caller, reference, record)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// If there is no such object, or another one depends on it.
    fn delete(
        state: &State,
        context: &mut OpContext<'_>,
        reference: &Reference,
        options: Self::DeleteOptions,
    ) -> Result<Vec<Change>, Problem>;
}

/// A kind of object whose creation returns its view. The others return a secret with it.
pub(super) trait CreateObject: TenantObject {
    /// Returns the name of the new object, if the request has one.
    fn name(request: &Self::Request) -> Option<&Name>;

    /// Creates an object.
    ///
    /// # Errors
    /// If the request is invalid, or conflicts with the state.
    fn create(
        state: &State,
        context: &mut OpContext<'_>,
        policy: &Policy,
        tenant: &Name,
        request: Self::Request,
    ) -> Result<Vec<Change>, Problem>;
}

/// A kind of object that can be changed.
pub(super) trait UpdateObject: TenantObject {
    /// Changes an object.
    ///
    /// # Errors
    /// If there is no such object, or the request is invalid or conflicts with the state.
    fn update(
        state: &State,
        context: &mut OpContext<'_>,
        reference: &Reference,
        request: Self::Request,
    ) -> Result<Vec<Change>, Problem>;
}

/// Returns an object's record.
///
/// # Errors
/// If there is no such object.
pub(super) fn record<'a, T: TenantObject>(
    state: &'a State,
    reference: &Reference,
) -> Result<&'a Record<T>, Problem> {
    let record = T::table(state).get(reference);
    record.ok_or_else(|| Problem::not_found(T::KIND, reference))
}

fn present<T: TenantObject>(
    controller: &Controller,
    caller: &Principal,
    reference: &Reference,
) -> Result<T::View, ApiError> {
    let record = record(controller.state(), reference)?;
    Ok(T::present(controller, caller, reference, record)?)
}

/// Finds out what a change of an object of the kind depends on.
async fn prepare<T: TenantObject>(agent: &AppState) -> Result<(), ApiError> {
    if T::KIND == Kind::Network {
        agent.scan_host_uses().await?;
    }
    Ok(())
}

/// Lists a tenant's objects.
pub(super) async fn list<T: TenantObject>(
    agent: &AppState,
    caller: &Authorized<Read>,
    page: &PageRequest,
) -> ApiResult<Page<T::View>> {
    let controller = agent.controller.lock().await;
    if !controller.state().tenants.contains_key(&caller.tenant) {
        return Err(Problem::no_tenant(&caller.tenant).into());
    }
    let mut availability = ServiceAvailability::default();
    let page = page.paginate(
        State::owned_by(T::table(controller.state()), &caller.tenant),
        |(reference, _)| reference.name.clone(),
        |(reference, record)| {
            Ok(T::present_in_list(
                &controller,
                &caller.caller,
                reference,
                record,
                &mut availability,
            )?)
        },
    )?;
    Ok(Json(page))
}

/// Creates an object. A repetition with the same idempotency key gets the response of the first request.
pub(super) async fn create<T: CreateObject, P>(
    agent: &AppState,
    caller: &Authorized<P>,
    request: T::Request,
    idempotency_key: Option<IdempotencyKey>,
) -> CreateResult<T::View> {
    let name = required_name(T::name(&request).cloned())?;
    let reference = Reference::new(caller.tenant.clone(), name);
    let (principal, tenant) = (&*caller.caller, &reference.tenant);
    prepare::<T>(agent).await?;
    agent
        .change_and_present(
            principal,
            idempotency_key,
            |state, context, policy| T::create(state, context, policy, tenant, request),
            |controller, created| {
                let view = present::<T>(controller, principal, &reference)?;
                Ok(create_response(created, view))
            },
        )
        .await
}

/// Shows an object.
pub(super) async fn show<T: TenantObject>(
    agent: &AppState,
    caller: &Authorized<Read>,
    name: &str,
) -> ApiResult<T::View> {
    let reference = parse_path_reference(T::KIND, caller.tenant.clone(), name)?;
    let controller = agent.controller.lock().await;
    let view = present::<T>(&controller, &caller.caller, &reference)?;
    Ok(Json(view))
}

/// Changes an object.
pub(super) async fn update<T: UpdateObject, P>(
    agent: &AppState,
    caller: &Authorized<P>,
    name: &str,
    request: T::Request,
) -> ApiResult<T::View> {
    let reference = parse_path_reference(T::KIND, caller.tenant.clone(), name)?;
    let principal = &*caller.caller;
    prepare::<T>(agent).await?;
    agent
        .change_and_present(
            principal,
            None,
            |state, context, _| T::update(state, context, &reference, request),
            |controller, _| {
                let view = present::<T>(controller, principal, &reference)?;
                Ok(Json(view))
            },
        )
        .await
}

/// Deletes an object.
pub(super) async fn delete<T: TenantObject, P>(
    agent: &AppState,
    caller: &Authorized<P>,
    name: &str,
    options: T::DeleteOptions,
) -> Result<StatusCode, ApiError> {
    let reference = parse_path_reference(T::KIND, caller.tenant.clone(), name)?;
    agent
        .change(&caller.caller, |state, context, _| {
            T::delete(state, context, &reference, options)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Declares the handlers of one kind of object.
///
/// The head names the object with its request and its view, the permission that changes require, the singular and the
/// plural in texts and operation ids, and the two paths. Each of the following lines declares one handler with its
/// summary.
macro_rules! crud {
    (@list [$object:ident $request:ident $view:ident $permission:ident $one:literal $many:literal $collection:literal $item:literal] $summary:literal) => {
        #[utoipa::path(
            get, path = $collection, operation_id = concat!("list_", $many), tag = $one, summary = $summary,
            params(("tenant" = crate::model::Name, Path, description = "The owner"), crate::api::types::PageRequest),
            responses(
                (status = 200, body = crate::api::types::Page<$view>, description = concat!("The ", $many, ", sorted by name")),
                crate::api::response::ReadErrors,
            ),
        )]
        pub(in crate::api) async fn list(
            axum::extract::State(agent): axum::extract::State<crate::api::AppState>,
            caller: crate::api::authorize::Authorized<crate::api::authorize::Read>,
            crate::api::request::QueryParameters(page): crate::api::request::QueryParameters<crate::api::types::PageRequest>,
        ) -> crate::api::response::ApiResult<crate::api::types::Page<$view>> {
            crate::api::handlers::crud::list::<$object>(&agent, &caller, &page).await
        }
    };
    (@create(idempotent) [$object:ident $request:ident $view:ident $permission:ident $one:literal $many:literal $collection:literal $item:literal] $summary:literal) => {
        #[utoipa::path(
            post, path = $collection, operation_id = concat!("create_", $one), tag = $one, summary = $summary,
            params(
                ("tenant" = crate::model::Name, Path, description = "The owner"),
                ("Idempotency-Key" = Option<String>, Header, description = crate::api::handlers::IDEMPOTENCY_KEY, min_length = 1, max_length = 255),
            ),
            request_body = $request,
            responses(
                (status = 201, body = $view, description = concat!("The ", $one, " was created")),
                (status = 200, body = $view, description = concat!("An identical ", $one, " existed already")),
                crate::api::response::WriteErrors,
            ),
        )]
        pub(in crate::api) async fn create(
            axum::extract::State(agent): axum::extract::State<crate::api::AppState>,
            caller: crate::api::authorize::Authorized<crate::api::authorize::$permission>,
            mut creation: crate::api::request::IdempotentJson<$request>,
        ) -> crate::api::response::CreateResult<$view> {
            let key = creation.take_idempotency_key();
            crate::api::handlers::crud::create::<$object, _>(&agent, &caller, creation.request, key).await
        }
    };
    (@create [$object:ident $request:ident $view:ident $permission:ident $one:literal $many:literal $collection:literal $item:literal] $summary:literal) => {
        #[utoipa::path(
            post, path = $collection, operation_id = concat!("create_", $one), tag = $one, summary = $summary,
            params(("tenant" = crate::model::Name, Path, description = "The owner")),
            request_body = $request,
            responses(
                (status = 201, body = $view, description = concat!("The ", $one, " was created")),
                (status = 200, body = $view, description = concat!("An identical ", $one, " existed already")),
                crate::api::response::WriteErrors,
            ),
        )]
        pub(in crate::api) async fn create(
            axum::extract::State(agent): axum::extract::State<crate::api::AppState>,
            caller: crate::api::authorize::Authorized<crate::api::authorize::$permission>,
            crate::api::request::JsonBody(request, _permit): crate::api::request::JsonBody<$request>,
        ) -> crate::api::response::CreateResult<$view> {
            crate::api::handlers::crud::create::<$object, _>(&agent, &caller, request, None).await
        }
    };
    (@show [$object:ident $request:ident $view:ident $permission:ident $one:literal $many:literal $collection:literal $item:literal] $summary:literal) => {
        #[utoipa::path(
            get, path = $item, operation_id = concat!("show_", $one), tag = $one, summary = $summary,
            params(
                ("tenant" = crate::model::Name, Path, description = "The owner"),
                ("name" = crate::model::Name, Path, description = concat!("Name of the ", $one)),
            ),
            responses(
                (status = 200, body = $view, description = concat!("The ", $one)),
                crate::api::response::ReadErrors,
            ),
        )]
        pub(in crate::api) async fn show(
            axum::extract::State(agent): axum::extract::State<crate::api::AppState>,
            caller: crate::api::authorize::Authorized<crate::api::authorize::Read>,
            crate::api::request::PathParameters(path): crate::api::request::PathParameters<(String, String)>,
        ) -> crate::api::response::ApiResult<$view> {
            crate::api::handlers::crud::show::<$object>(&agent, &caller, &path.1).await
        }
    };
    (@update [$object:ident $request:ident $view:ident $permission:ident $one:literal $many:literal $collection:literal $item:literal] $summary:literal) => {
        #[utoipa::path(
            put, path = $item, operation_id = concat!("update_", $one), tag = $one, summary = $summary,
            params(
                ("tenant" = crate::model::Name, Path, description = "The owner"),
                ("name" = crate::model::Name, Path, description = concat!("Name of the ", $one)),
            ),
            request_body = $request,
            responses(
                (status = 200, body = $view, description = concat!("The ", $one, " after the change")),
                crate::api::response::WriteErrors,
            ),
        )]
        pub(in crate::api) async fn update(
            axum::extract::State(agent): axum::extract::State<crate::api::AppState>,
            caller: crate::api::authorize::Authorized<crate::api::authorize::$permission>,
            crate::api::request::PathParameters(path): crate::api::request::PathParameters<(String, String)>,
            crate::api::request::JsonBody(request, _permit): crate::api::request::JsonBody<$request>,
        ) -> crate::api::response::ApiResult<$view> {
            crate::api::handlers::crud::update::<$object, _>(&agent, &caller, &path.1, request).await
        }
    };
    (@delete [$object:ident $request:ident $view:ident $permission:ident $one:literal $many:literal $collection:literal $item:literal] $summary:literal) => {
        #[utoipa::path(
            delete, path = $item, operation_id = concat!("delete_", $one), tag = $one, summary = $summary,
            params(
                ("tenant" = crate::model::Name, Path, description = "The owner"),
                ("name" = crate::model::Name, Path, description = concat!("Name of the ", $one)),
            ),
            responses(
                (status = 204, description = concat!("The ", $one, " was deleted")),
                crate::api::response::WriteErrors,
            ),
        )]
        pub(in crate::api) async fn delete(
            axum::extract::State(agent): axum::extract::State<crate::api::AppState>,
            caller: crate::api::authorize::Authorized<crate::api::authorize::$permission>,
            crate::api::request::PathParameters(path): crate::api::request::PathParameters<(String, String)>,
        ) -> Result<axum::http::StatusCode, crate::api::response::ApiError> {
            crate::api::handlers::crud::delete::<$object, _>(&agent, &caller, &path.1, ()).await
        }
    };
    (@delete($options:ident) [$object:ident $request:ident $view:ident $permission:ident $one:literal $many:literal $collection:literal $item:literal] $summary:literal) => {
        #[utoipa::path(
            delete, path = $item, operation_id = concat!("delete_", $one), tag = $one, summary = $summary,
            params(
                ("tenant" = crate::model::Name, Path, description = "The owner"),
                ("name" = crate::model::Name, Path, description = concat!("Name of the ", $one)),
                $options,
            ),
            responses(
                (status = 204, description = concat!("The ", $one, " was deleted")),
                crate::api::response::WriteErrors,
            ),
        )]
        pub(in crate::api) async fn delete(
            axum::extract::State(agent): axum::extract::State<crate::api::AppState>,
            caller: crate::api::authorize::Authorized<crate::api::authorize::$permission>,
            crate::api::request::PathParameters(path): crate::api::request::PathParameters<(String, String)>,
            crate::api::request::QueryParameters(options): crate::api::request::QueryParameters<$options>,
        ) -> Result<axum::http::StatusCode, crate::api::response::ApiError> {
            crate::api::handlers::crud::delete::<$object, _>(&agent, &caller, &path.1, options).await
        }
    };
    (
        $object:ident: $request:ident => $view:ident, $permission:ident, $one:literal, $many:literal, $collection:literal, $item:literal;
        $($operation:ident $(($option:ident))? $summary:literal;)*
    ) => {$(
        crud! { @$operation $(($option))? [$object $request $view $permission $one $many $collection $item] $summary }
    )*};
}

pub(super) use crud;
