//! Types of the OpenAPI document's schemas, by their schema names.

pub use std::net::IpAddr as IpAddress;

pub use crate::api::types::*;
