//! Insertion of a flow's two entries. The reverse entry is inserted first, since it is the reservation of the source
//! port.

use crate::{
    byte_order::{Be16, Be32},
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, Flow, FlowKey, FlowTables, InsertError, StateWord, Table, TcpFlagsSeen},
    maps::{Attachment, MAX_ATTACHMENTS, MAX_BACKENDS},
    packet::{Ethernet, Mac, PortPair},
    pipeline::{
        ingress::l4::{L4Header, L4Packet},
        open::{
            admission::Admitted,
            select_backend::SelectedBackend,
            snat::{self, backend_port},
        },
        rate_limit,
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Inserts both entries of a flow into the half-open table.
#[inline(always)]
pub(crate) fn insert_flow<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &L4Packet<A>,
    key: &FlowKey<T>,
    admitted: &Admitted,
    selected: &SelectedBackend,
) -> StageResult<()> {
    let connection_slot = admitted.address.connection_slot;
    let address = T::to_table_addr(selected.backend.address)
        .ok_or(Exit::drop(DropReason::ConfigRace, connection_slot))?;
    rate_limit::check_new_flow(env, connection_slot)?;
    let now = env.now();

    let scratch = FlowTables::<T>::flow_scratch(env)
        .ok_or(Exit::drop(DropReason::FlowTableFull, connection_slot))?;
    // SAFETY: the memory belongs to this packet alone until the verdict, and any bytes are a valid entry.
    let flow = unsafe { &mut *scratch.as_ptr() };
    flow.source = key.destination;
    flow.destination = key.source;
    flow.ports = key.ports.swapped();
    flow.network = attachment.network;
    flow.connection_slot = connection_slot;
    flow.generation = admitted.address.generation;
    flow.egress_slot = attachment_slot(attachment.slot);
    flow.set_consumer_mac(Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source));
    flow.state_word = StateWord::NONE;
    flow.last_seen = now.0;
    flow.last_ack = Be32::new(0);
    flow.window = Be16::new(0);
    flow.window_scale = 0;
    flow.tcp_flags_seen = TcpFlagsSeen::NONE.0;
    flow.direction = Direction::ToConsumer as u8;
    flow.backend_slot = backend_slot(selected.slot);
    flow.flags = if A::from_mapped(selected.backend.address).is_none() {
        Flow::<T>::NAT46
    } else {
        0
    };
    let source =
        snat::allocate_source::<A, T, E>(env, attachment, packet, admitted, selected, address)?;

    // The same memory serves for the entry of the other direction.
    flow.source = source.address;
    flow.destination = address;
    flow.ports = PortPair::new(source.port, backend_port(&admitted.port, packet));
    flow.network = admitted.port.network;
    flow.egress_slot = attachment_slot(selected.backend.egress_slot);
    flow.set_backend(selected.slot, selected.backend.generation);
    flow.state_word = StateWord::created_at(now);
    flow.direction = Direction::ToService as u8;
    flow.tcp_flags_seen = match packet.l4_header(env) {
        L4Header::Tcp(tcp) => TcpFlagsSeen::NONE.with_segment(tcp.flags()).0,
        L4Header::Udp(_) | L4Header::None => TcpFlagsSeen::ACK.0,
    };
    flow.compute_checksum_deltas(key);

    let inserted = env.insert_flow(Table::HalfOpen, key, flow);
    if inserted.is_err() {
        // Another CPU opened the same flow at the same time: the client's next packet uses it.
        release_source_port(env, flow, key.network_proto.protocol());
        let reason = match inserted {
            Err(InsertError::Exists) => DropReason::ConfigRace,
            _ => DropReason::FlowTableFull,
        };
        return Err(Exit::drop(reason, connection_slot));
    }
    env.count_flow_opened(connection_slot);
    rate_limit::flow_opened(env, connection_slot);
    Ok(())
}

/// Returns an attachment slot as an entry holds it.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion bounds the slot"
)]
const fn attachment_slot(slot: u32) -> u16 {
    const { assert!(MAX_ATTACHMENTS <= 1 << 16) };
    slot as u16
}

/// Returns a backend slot as an entry holds it.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion bounds the slot"
)]
const fn backend_slot(slot: u32) -> u16 {
    const { assert!(MAX_BACKENDS <= 1 << 16) };
    slot as u16
}

/// Removes the reverse entry, which releases the source port. Not inlined, to save stack.
#[inline(never)]
fn release_source_port<T: Family, E: PlatformFor<T>>(env: &mut E, flow: &Flow<T>, protocol: u8) {
    let reverse = flow.reverse_key(protocol);
    env.remove_flow(Table::HalfOpen, &reverse);
}
