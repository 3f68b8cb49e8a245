//! Termination of revoked TCP flows: the frames for both ends.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{Be16, Family, packet::Mac};

use crate::{
    agent::flow_gc::GcSnapshot,
    bpf::flow_tables::FlowTableSet,
    compile::flow_expiry::{FlowEntry, FlowPair},
    inject::frames::TcpTermination,
};

/// Next hops (egress slot and MAC address) of backends that have left their slot, by slot and the lower 16 bits of the
/// generation, as flows hold them.
pub type DepartedBackends = HashMap<(u32, u16), (u32, Mac)>;

impl GcSnapshot {
    /// Returns the frames that terminate both ends of a TCP flow, with the interfaces that they are sent from.
    pub(super) fn terminations<F: Family>(
        &self,
        tables: &FlowTableSet,
        pair: &FlowPair<F>,
    ) -> Vec<(u32, TcpTermination)> {
        let (forward, reverse) = (&pair.to_service, &pair.to_consumer);
        let slot = (
            forward.flow.backend_slot.into(),
            forward.flow.backend_generation,
        );
        let backend = tables
            .backend(&forward.flow)
            .map(|backend| (backend.egress_slot, backend.mac.mac()))
            .filter(|(_, mac)| *mac != Mac::default())
            .or_else(|| self.departed_backends.get(&slot).copied());
        let client = (
            reverse.flow.egress_slot(),
            reverse.flow.consumer_mac().mac(),
        );
        let to_consumer = self.termination(reverse, Some(client), forward, reverse);
        let to_service = self.termination(forward, backend, reverse, forward);
        to_consumer.into_iter().chain(to_service).collect()
    }

    /// Returns the frame that terminates one end of a TCP flow through `next_hop`. `template` is the entry that gives
    /// the frame its addresses, `sent` the entry of the packets that this end sends, `received` of those it receives.
    fn termination<F: Family>(
        &self,
        template: &FlowEntry<F>,
        next_hop: Option<(u32, Mac)>,
        sent: &FlowEntry<F>,
        received: &FlowEntry<F>,
    ) -> Option<(u32, TcpTermination)> {
        let (slot, mac) = next_hop?;
        let (egress, ifindex) = self.egress.get(&slot)?;
        // Packets of the other direction arrive from the network that the frame leaves to.
        let other = if std::ptr::eq(template, sent) {
            received
        } else {
            sent
        };
        if egress.network != other.key.network_proto.network() {
            return None;
        }
        let (template, sent, received) = (&template.flow, &sent.flow, &received.flow);
        let socket = |address: F::Address, port: Be16| {
            SocketAddr::new(IpAddr::from(F::to_mapped(address)), port.get())
        };
        let termination = TcpTermination {
            macs: (egress.mac.mac(), mac),
            source: socket(template.source, template.ports.source()),
            destination: socket(template.destination, template.ports.destination()),
            sequence: sent.last_ack.get(),
            acknowledgement: received.last_ack.get(),
        };
        Some((*ifindex, termination))
    }
}
