//! Projections: the types of the API, made of the controller's state and the host's.

mod access;
mod caller;
mod connection;
mod endpoint;
mod flow;
mod network;
mod service;
mod status;
mod tenant;

pub use self::{
    access::{identity, new_token, new_webhook, token, webhook},
    caller::caller,
    connection::{connection, connection_status},
    endpoint::{CounterDetail, ServiceAvailability, endpoint},
    flow::flow,
    network::network,
    service::service,
    status::status,
    tenant::tenant,
};
