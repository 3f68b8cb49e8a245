//! Types of the OpenAPI document's schemas, by their schema names.

pub use crate::api::types::*;
