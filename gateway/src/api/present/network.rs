//! Views of networks.

use crate::{
    agent::controller::Controller,
    api::types::{AttachmentStatus, DrainingAddress, NetworkSpec, NetworkStatus, NetworkView},
    bpf::loader::AttachMode,
    compile::network::is_isolated,
    host::status::AttachmentState,
    model::{Network, Record, Reference, network::Attachment},
};

/// Returns the view of a network.
#[must_use]
pub fn network(
    controller: &Controller,
    reference: &Reference,
    record: &Record<Network>,
) -> NetworkView {
    let network = &record.object;
    let missing = AttachmentState::default();
    let attachments = network
        .attachments
        .iter()
        .map(|Attachment { interface }| {
            let state = controller
                .host_status()
                .attachments
                .get(interface)
                .unwrap_or(&missing);
            attachment(controller, interface, state)
        })
        .collect();
    let draining = controller.draining_addresses(network.number);
    let draining = draining.map(|(address, flows)| DrainingAddress { address, flows });
    NetworkView {
        meta: record.meta.clone(),
        tenant: Some(reference.tenant.clone()),
        spec: NetworkSpec {
            attachments: network.attachments.clone(),
            isolated: network.isolated,
            mtu: network.mtu,
            prefixes: network.prefixes.clone(),
            routers: network.routers.clone(),
            pool: network.pool.clone(),
        },
        status: NetworkStatus {
            isolated: is_isolated(controller.state(), reference, network),
            attachments,
            draining_addresses: draining.collect(),
        },
    }
}

fn attachment(
    controller: &Controller,
    interface: &str,
    state: &AttachmentState,
) -> AttachmentStatus {
    let link = state.link.as_ref();
    let traffic = controller.traffic(interface);
    let drops = traffic.map(|traffic| &traffic.drops).into_iter().flatten();
    AttachmentStatus {
        interface: interface.to_owned(),
        state: match link {
            None => "missing",
            Some(link) if link.up => "up",
            Some(link) if link.admin_up => "no_carrier",
            Some(_) => "down",
        }
        .to_owned(),
        ifindex: link.map(|link| link.ifindex),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()),
        mtu: link.map(|link| link.mtu),
        xdp_mode: state.mode.map(|mode| {
            match mode {
                AttachMode::Native => "native",
                AttachMode::Generic => "generic",
            }
            .to_owned()
        }),
        received_packets: traffic.map(|traffic| traffic.received_packets),
        last_received_at: traffic.and_then(|traffic| traffic.last_received_at),
        watched_since: traffic.map(|traffic| traffic.watched_since),
        drops: drops
            .map(|(reason, count)| (reason.name().to_owned(), *count))
            .collect(),
        problems: controller.attachment_problems(interface).collect(),
        notes: state.notes.clone(),
    }
}
