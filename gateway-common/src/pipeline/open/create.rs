//! Creation of a flow's two entries: they are prepared from the packet, and inserted by another subprogram, which needs
//! nothing but what was prepared. The reverse entry is inserted first, since it is the reservation of the source port.

use crate::{
    byte_order::Be32,
    drop_reason::DropReason,
    family::Family,
    flow::{Direction, FlowKey, FlowTables, NO_PEER, insert::InsertError, memory::Place as _},
    maps::{Attachment, NO_CONNECTION},
    packet::{Ethernet, Mac},
    pipeline::{
        conntrack::{calls, life, reclaim, tcp},
        ingress::l4::L4Packet,
        open::{
            admission::Admitted,
            select_backend::SelectedBackend,
            snat::{self, SnatSearch},
        },
        rate_limit,
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Prepares the reverse entry of a new flow, and the search for its source.
#[inline(always)]
pub(crate) fn prepare_flow<A: Family, T: Family, E: PlatformFor<T>>(
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
    snat::prepare::<A, T, E>(env, attachment, packet, admitted, selected, address)?;
    let mac = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    let now = env.now();
    let scratch = FlowTables::<T>::flow_scratch(env)
        .ok_or(Exit::drop(DropReason::FlowTableFull, connection_slot))?;
    // SAFETY: the memory belongs to this packet alone until the verdict, and any bytes are a valid entry.
    let flow = unsafe { &mut *scratch.as_ptr() };
    flow.source = key.destination;
    flow.destination = key.source;
    flow.ports = key.ports.swapped();
    flow.peer = NO_PEER;
    flow.last_seen_and_scale = now.0;
    flow.last_ack = Be32::new(0);
    flow.window = 0;
    flow.set_connection(connection_slot, admitted.address.generation);
    flow.set_backend(selected.slot, selected.backend.generation);
    let is_nat46 = A::from_mapped(selected.backend.address).is_none();
    flow.set_direction(Direction::ToConsumer, attachment.slot, is_nat46);
    flow.set_consumer_mac(mac);
    Ok(())
}

/// Inserts both entries of the flow that was prepared. Returns the exit that goes on with the flow: the new one, or
/// another CPU's.
#[inline(always)]
pub(crate) fn insert_prepared_flow<T: Family, E: PlatformFor<T>>(env: &mut E) -> StageResult<Exit> {
    let unprepared = Exit::drop(DropReason::ConfigRace, NO_CONNECTION);
    // First, since it may give back what the limits count.
    reclaim::sweep::<T, E>(env);
    let search = env.scratch().ok_or(unprepared)?;
    // SAFETY: the memory belongs to this packet alone, and the subprogram before has written it.
    let search = unsafe { &mut *search.cast::<SnatSearch<T>>().as_ptr() };
    let scratch = FlowTables::<T>::flow_scratch(env).ok_or(unprepared)?;
    // SAFETY: as for `search`.
    let flow = unsafe { &mut *scratch.as_ptr() };
    let connection_slot = flow.connection_slot();
    rate_limit::check_share::<T, E>(env, connection_slot)?;
    rate_limit::check_new_flow(env, connection_slot)?;
    let mut reservation = snat::allocate_source::<T, E>(env, search)
        .map_err(|reason| Exit::drop(reason, connection_slot))?;

    // The same memory serves for the entry of the other direction.
    let key = FlowKey::<T> {
        network_proto: search.client,
        source: flow.destination,
        destination: flow.source,
        ports: flow.ports.swapped(),
    };
    flow.source = search.key.destination;
    flow.destination = search.key.source;
    flow.ports = search.key.ports.swapped();
    flow.peer = reservation.index;
    let client = flow.return_path();
    flow.set_direction(Direction::ToService, 0, flow.is_nat46());
    flow.set_created_at(flow.last_seen());
    flow.set_return_path(flow.return_path().to_service_by(client));
    search.key = key;
    flow.compute_checksum_delta(&search.key);
    // Counted before others can find the flow, and close it.
    rate_limit::flow_opened(env, connection_slot);
    let inserted = calls::insert::<T, E>(env);
    let mut inserted = match inserted {
        Ok(inserted) => inserted,
        Err(error) => {
            rate_limit::flow_closed(env, connection_slot);
            life::remove_entry(env, &mut reservation);
            return match error {
                // Another CPU has opened the same flow at the same time.
                InsertError::Exists => Ok(Exit::SLOW_PATH),
                InsertError::Full => Err(Exit::drop(DropReason::FlowTableFull, connection_slot)),
            };
        }
    };
    reservation.place.set_peer(inserted.index);
    #[expect(clippy::cast_possible_truncation, reason = "flags of a header")]
    tcp::record_flags(&mut inserted, search.tcp_flags as u8);
    env.count_flow_opened(connection_slot);
    let is_client_mapped = T::from_mapped(T::to_mapped(search.key.source)).is_none();
    Ok(if is_client_mapped {
        Exit::forward_nat46(inserted.handle())
    } else {
        Exit::forward(inserted.handle())
    })
}
