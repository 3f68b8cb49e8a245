//! Endpoints as the API shows them.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    address_conflict::ClaimStatus,
    agent::controller::Controller,
    api::view::{ConnectionStatus, view},
    model::{Endpoint, Meta, Name, Principal, Record, Reference, schema},
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

/// The counters that a view of an endpoint reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterDetail {
    /// The totals only, with two system calls for each endpoint.
    Totals,
    /// The totals and the drops by reason, with one more system call for each reason.
    Drops,
}

/// Returns the view of an endpoint.
///
/// # Errors
/// If the counters can't be read.
pub fn endpoint(
    controller: &Controller,
    caller: &Principal,
    reference: &Reference,
    record: &Record<Endpoint>,
    detail: CounterDetail,
) -> anyhow::Result<EndpointView> {
    let endpoint = &record.object;
    let slot = endpoint.connection.slot;
    let counted = controller.maps().connection_counters(slot)?;
    let drops = match detail {
        CounterDetail::Totals => None,
        CounterDetail::Drops => {
            let drops = controller
                .maps()
                .connection_drops(slot, &counted)?
                .into_iter();
            let named = drops.map(|(reason, count)| (reason.name().to_owned(), count));
            Some(named.collect())
        }
    };
    let link = controller.map_snapshot().connections.get(&slot);
    Ok(EndpointView {
        meta: record.meta.clone(),
        tenant: Some(reference.tenant.clone()),
        spec: EndpointSpec {
            network: endpoint.network.clone(),
            addresses: endpoint.addresses.clone(),
            service: endpoint.service.clone(),
            resource: endpoint.resource.clone(),
            request_message: endpoint.request_message.clone(),
        },
        status: EndpointStatus {
            connection: ConnectionStatus::from(&endpoint.connection)
                .redacted_for(caller, &endpoint.service_identity.reference),
            programmed: link.is_some_and(|link| link.id == endpoint.connection.link_id),
            addresses: addresses(controller, reference, endpoint),
            flows: controller.maps().usage(slot)?.flows,
            counters: Counters {
                flows_opened: counted.flows_opened,
                packets_to_service: counted.packets_to_service,
                bytes_to_service: counted.bytes_to_service,
                packets_to_consumer: counted.packets_to_consumer,
                bytes_to_consumer: counted.bytes_to_consumer,
                drops,
            },
        },
    })
}

fn addresses(
    controller: &Controller,
    reference: &Reference,
    endpoint: &Endpoint,
) -> Vec<AddressStatus> {
    let network = Reference::new(reference.tenant.clone(), endpoint.network.clone());
    let found = controller.state().networks.get(&network);
    let addresses = endpoint.addresses.iter().map(|address| {
        let host = &controller.observed().host;
        let conflict = found
            .and_then(|found| host.conflict(controller.state(), &network, &found.object, *address));
        if let Some(problem) = conflict {
            return AddressStatus {
                address: *address,
                state: "host".to_owned(),
                problem: Some(problem),
                mac_address: None,
            };
        }
        let standing = controller.address_status(&(network.clone(), *address));
        let (state, station) = match standing {
            None | Some(ClaimStatus::Probing) => ("probing", None),
            Some(ClaimStatus::InUse) => ("in_use", None),
            Some(ClaimStatus::Conflict(station)) => ("conflict", Some(station)),
            Some(ClaimStatus::Disputed(station)) => ("disputed", Some(station)),
        };
        AddressStatus {
            address: *address,
            state: state.to_owned(),
            problem: None,
            mac_address: station.map(|station| station.to_string()),
        }
    });
    addresses.collect()
}
