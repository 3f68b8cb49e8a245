//! Views of endpoints.

use std::collections::BTreeMap;

use crate::{
    address_conflict::ClaimStatus,
    agent::controller::Controller,
    api::{
        present::connection_status,
        types::{AddressStatus, Counters, EndpointSpec, EndpointStatus, EndpointView},
    },
    model::{ConnectionState, Endpoint, Principal, Record, Reference},
};

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
    availability: &mut ServiceAvailability,
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
            connection: connection_status(
                &endpoint.connection,
                caller,
                &endpoint.service_identity.reference,
            ),
            programmed: link.is_some_and(|link| link.id == endpoint.connection.link_id),
            service_available: availability.of(controller, endpoint),
            addresses: addresses(controller, reference, endpoint),
            flows: controller.maps().usage(slot)?.flows.get(),
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

/// Availability of the resources that the endpoints of a page stand for, by resource number. Each is found out once,
/// because many endpoints may stand for one resource with hundreds of backends.
#[derive(Debug, Default)]
pub struct ServiceAvailability(BTreeMap<u32, bool>);

impl ServiceAvailability {
    /// Returns true if a backend of the endpoint's resource can take new flows, or `None` if the connection is not
    /// approved. Which one, and why not, is for the provider to know.
    fn of(&mut self, controller: &Controller, endpoint: &Endpoint) -> Option<bool> {
        if endpoint.connection.state != ConnectionState::Approved {
            return None;
        }
        let identity = &endpoint.service_identity;
        let service = controller.state().services.get(&identity.reference);
        let service = service.filter(|service| service.meta.uid == identity.uid)?;
        let spec = &service.object.spec;
        let resource = spec.resource(&endpoint.resource)?;
        let number = *service.object.resource_numbers.get(&endpoint.resource)?;
        let takes_flows = || controller.takes_flows(&identity.reference, spec, resource);
        Some(*self.0.entry(number).or_insert_with(takes_flows))
    }
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
        let status = controller.address_status(&(network.clone(), *address));
        let (state, mac_address) = match status {
            None | Some(ClaimStatus::Probing) => ("probing", None),
            Some(ClaimStatus::InUse) => ("in_use", None),
            Some(ClaimStatus::Conflict(mac)) => ("conflict", Some(mac)),
            Some(ClaimStatus::Disputed(mac)) => ("disputed", Some(mac)),
        };
        AddressStatus {
            address: *address,
            state: state.to_owned(),
            problem: None,
            mac_address: mac_address.map(|mac| mac.to_string()),
        }
    });
    addresses.collect()
}
