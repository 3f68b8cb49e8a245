//! Compilation of networks: attachments and egress interfaces. Pure.

use gateway_common::maps::{Attachment, Egress, MAX_ATTACHMENTS, name};

use crate::{
    compile::{compile_cache::EntryKey, compiler::Compiler, observed::Interface},
    model::{Network, Record, Reference, State},
};

/// Returns true if the network drops packets whose destination is not an endpoint.
#[must_use]
pub fn is_isolated(state: &State, reference: &Reference, network: &Network) -> bool {
    let services = state.services_of_network(reference).next().is_some();
    network.isolated.unwrap_or(!services)
}

impl Compiler<'_> {
    /// Compiles the attachments of a network whose interfaces are usable.
    pub(super) fn compile_network(&mut self, reference: &Reference, record: &Record<Network>) {
        for attachment in &record.object.attachments {
            let name = &*attachment.interface;
            let Some(interface) = self.observed.interfaces.get(name).copied() else {
                continue;
            };
            // An interface that stays in its network keeps its slot, because flow entries refer to it.
            let current = self.current.attachments.get(&interface.ifindex);
            let unchanged = current.filter(|attachment| attachment.network == record.object.number);
            let slot = match unchanged {
                Some(attachment) => Some(attachment.slot),
                None => self.cache.attachments.allocate(1),
            };
            let Some(slot) = slot else {
                self.report_full(format!("interface {name}"), name::EGRESS, MAX_ATTACHMENTS);
                continue;
            };
            self.compile_attachment(reference, record, interface, slot);
        }
    }

    fn compile_attachment(
        &mut self,
        reference: &Reference,
        record: &Record<Network>,
        interface: Interface,
        slot: u32,
    ) {
        let network = &record.object;
        let services = self.state.services_of_network(reference).next().is_some();
        let mut flags = 0;
        if is_isolated(self.state, reference, network) {
            flags |= Attachment::ISOLATED;
        }
        if services {
            flags |= Attachment::PASS_ARP_ND;
        }
        if self.cache.nat46_usage.needs_nat46(reference) {
            flags |= Attachment::NAT46;
        }
        let Interface {
            ifindex,
            mac,
            mtu,
            has_carrier,
        } = interface;
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        self.snapshot.attachments.insert(
            ifindex,
            Attachment {
                ifindex,
                network: network.number,
                slot,
                flags,
                mac: mac.into(),
            },
        );
        self.snapshot.egress.insert(
            slot,
            Egress {
                // Packets would be lost in an interface without carrier: they are dropped with a reason instead.
                network: if has_carrier { network.number } else { 0 },
                mtu: network.mtu.map_or(mtu, |limit| limit.min(mtu)),
                mac: mac.into(),
                ..Egress::default()
            },
        );
        self.snapshot.tx_ports.insert(slot, ifindex);
        self.keys
            .extend([EntryKey::Attachment(ifindex), EntryKey::Egress(slot)]);
    }

    /// Returns the slot of an attached interface.
    pub(super) fn attachment_slot(&self, interface: &str) -> Option<u32> {
        let ifindex = self.observed.interfaces.get(interface)?.ifindex;
        let planned = self.snapshot.attachments.get(&ifindex);
        let attachment = planned.or_else(|| self.current.attachments.get(&ifindex))?;
        Some(attachment.slot)
    }
}
