//! Wire types of endpoints.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::types::{ConnectionStatus, view},
    model::{Meta, Name, schema},
};

/// An endpoint's fields.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EndpointSpec {
    /// The consumer's network.
    pub network: Name,
    /// Private addresses in the network.
    #[schema(value_type = Vec<schema::IpAddress>)]
    pub addresses: Vec<IpAddr>,
    /// The service as the user named it: by reference or by alias.
    pub service: String,
    /// The resource that the endpoint is bound to.
    pub resource: Name,
    /// Message of the consumer to the provider.
    pub request_message: String,
}

/// An endpoint's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EndpointStatus {
    /// State of the connection to the service.
    pub connection: ConnectionStatus,
    /// True if the data path has the endpoint.
    pub programmed: bool,
    /// False if the service has no backend that can take new flows. Absent if the connection is not
    /// approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_available: Option<bool>,
    /// Status of each address.
    pub addresses: Vec<AddressStatus>,
    /// Current number of flows.
    pub flows: u64,
    /// Counters of forwarded and dropped packets.
    pub counters: Counters,
}

/// Status of an endpoint's address.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AddressStatus {
    /// The address.
    #[schema(value_type = schema::IpAddress)]
    pub address: IpAddr,
    /// `probing`: address conflict detection is in progress; `in_use`; `conflict`: another host has the address, so
    /// the endpoint does not use it; `disputed`: the endpoint uses the address, and another host claims it;
    /// `host`: the gateway's host has the address, so the endpoint does not use it.
    pub state: String,
    /// Problem with the address, and its remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// MAC address of the other host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
}

/// Counters of a connection. Bytes are those of IP packets.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets from the consumer to the service.
    pub packets_to_service: u64,
    /// Bytes of these packets.
    pub bytes_to_service: u64,
    /// Packets from the service to the consumer.
    pub packets_to_consumer: u64,
    /// Bytes of these packets.
    pub bytes_to_consumer: u64,
    /// Packets dropped or rejected, by drop reason. Lists omit them, since each reason takes a system call: show the
    /// endpoint to see them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = BTreeMap<String, u64>, required = false)]
    pub drops: Option<BTreeMap<String, u64>>,
}

view! {
    /// An endpoint.
    EndpointView: EndpointSpec, EndpointStatus
}
