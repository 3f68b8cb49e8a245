//! Opens a flow: both entries are made, the reverse one first, since it reserves the source port.

use crate::{
    Be16, Be32, DropReason, Environment, Family, Step, Turn,
    environment::InsertError,
    flow::{Direction, Flow, FlowKey, PortPair, Seen, Table},
    maps::{Attachment, MOST_ATTACHMENTS, MOST_BACKENDS},
    packet::{Ethernet, Mac},
    stages::{
        admission::Admitted,
        backend::Chosen,
        limit,
        source_nat::{self, backend_port},
        transport::{Segment, Transport},
    },
};

/// Inserts the flow's entries.
#[inline(always)]
pub(super) fn open<A: Family, T: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<A>,
    key: &FlowKey<T>,
    admitted: &Admitted,
    chosen: &Chosen,
) -> Step<()> {
    let link = admitted.address.link;
    let address =
        T::in_table(chosen.backend.address).ok_or(Turn::drop(DropReason::Inconsistent, link))?;
    limit::new_flow(env, link)?;
    let now = env.now().0;

    let scratch = T::scratch(env).ok_or(Turn::drop(DropReason::FlowTableFull, link))?;
    // SAFETY: the memory is this packet's alone until the verdict, and any bytes are an entry.
    let flow = unsafe { &mut *scratch.as_ptr() };
    flow.source = key.destination;
    flow.destination = key.source;
    flow.ports = key.ports.swapped();
    flow.network = attachment.network;
    flow.link = link;
    flow.generation = admitted.address.generation;
    flow.egress = slot(attachment.slot);
    flow.set_station(Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source));
    flow.beginning = 0;
    flow.last_seen = now;
    flow.acknowledged = Be32::new(0);
    flow.window = Be16::new(0);
    flow.scale = 0;
    flow.seen = Seen::NONE.0;
    flow.direction = Direction::ToConsumer as u8;
    flow.backend_slot = backend_slot(chosen.slot);
    flow.flags = if A::narrow(chosen.backend.address).is_none() {
        Flow::<T>::TRANSLATED
    } else {
        0
    };
    let source =
        source_nat::reserve::<A, T, E>(env, attachment, segment, admitted, chosen, address)?;

    // The same memory serves the other direction.
    flow.source = source.address;
    flow.destination = address;
    flow.ports = PortPair::new(source.port, backend_port(&admitted.port, segment));
    flow.network = admitted.port.network;
    flow.egress = slot(chosen.backend.egress);
    flow.set_backend(chosen.slot, chosen.backend.generation);
    flow.beginning = now;
    flow.direction = Direction::ToService as u8;
    flow.seen = match segment.transport(env) {
        Transport::Tcp(tcp) => Seen::NONE.after(tcp.flags()).0,
        Transport::Udp(_) | Transport::Rest => Seen::ACK.0,
    };
    flow.complete(key);

    let inserted = T::insert_flow(env, Table::Embryonic, key, flow);
    if inserted.is_err() {
        // Another CPU opened the very same flow in this moment: the client's next packet uses it.
        give_back(env, flow, key.realm.protocol());
        let reason = match inserted {
            Err(InsertError::Exists) => DropReason::Inconsistent,
            _ => DropReason::FlowTableFull,
        };
        return Err(Turn::drop(reason, link));
    }
    env.count_flow(link);
    limit::opened(env, link);
    Ok(())
}

/// An attachment slot as an entry keeps it.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are no more than fit"
)]
const fn slot(slot: u32) -> u16 {
    const { assert!(MOST_ATTACHMENTS <= 1 << 16) };
    slot as u16
}

/// Returns a backend's slot as an entry keeps it.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are no more than fit"
)]
const fn backend_slot(slot: u32) -> u16 {
    const { assert!(MOST_BACKENDS <= 1 << 16) };
    slot as u16
}

/// Removes the reverse entry, and with it the reservation. A function of its own for its stack.
#[inline(never)]
fn give_back<T: Family, E: Environment>(env: &mut E, flow: &Flow<T>, protocol: u8) {
    let reverse = flow.reverse_key(protocol);
    T::remove_flow(env, Table::Embryonic, &reverse);
}
