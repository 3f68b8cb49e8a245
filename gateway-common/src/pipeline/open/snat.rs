//! The address and port in the provider's network from which the consumer appears.
//!
//! The address is chosen by the client's address alone, so that one client appears as one address
//! ("paired" pooling, RFC 4787 REQ-2), and the port by the client's address and port, so that one
//! socket of a client's appears as one port wherever that is free ("endpoint-independent" mapping,
//! REQ-1), with the parity of the client's (REQ-4). The backend is part of the reverse entry's key,
//! so one address serves 64,512 flows to each backend, not in all. Reserving is inserting that entry
//! with the demand that it not exist: two CPUs can't take the same port.

use crate::{
    byte_order::Be16,
    drop_reason::DropReason,
    family::{Family, V4},
    flow::{FlowKey, FlowTables, InsertError, NetworkProto, Table},
    hash,
    maps::{Attachment, NatAddress, Port},
    packet::{PortPair, protocol},
    pipeline::{
        ingress::l4::L4Packet,
        open::{admission::Admitted, select_backend::SelectedBackend},
    },
    platform::{LoopBody, Platform, PlatformFor, Scratch},
    subprogram::{Exit, StageResult},
};

/// The first port given out; those below are for services (RFC 6056, section 3.2).
pub const MIN_SOURCE_PORT: u16 = 1024;
/// How many there are from there on, on each address and towards each server.
pub const SOURCE_PORT_COUNT: u32 = 65_536 - MIN_SOURCE_PORT as u32;

/// How many pairs of an even and an odd port there are on one address.
const PORT_PAIRS: u32 = SOURCE_PORT_COUNT / 2;

/// Ports tried before the new flow is dropped. With 95 of 100 ports in use, one new flow in a
/// million finds none.
const MAX_ATTEMPTS: u32 = 256;

/// Ports tried on one address before the next one's turn.
const MAX_ATTEMPTS_PER_ADDRESS: u32 = 128;

/// Ports tried of the client's parity before those of the other.
const MAX_ATTEMPTS_PER_PARITY: u32 = 64;

/// Ports are tried in steps of this: odd, so that every pair of ports has its turn.
const STRIDE: u32 = 4_099;

/// The source given to a flow.
pub(crate) struct SnatMapping<F: Family> {
    pub(crate) address: F::Address,
    pub(crate) port: Be16,
}

/// Reserves a source by inserting the reverse entry, which has been built in the packet's own memory
/// ([`FlowTables::flow_scratch`]) but for its deltas: they depend on the source.
#[inline(always)]
pub(crate) fn allocate_source<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &L4Packet<A>,
    admitted: &Admitted,
    selected: &SelectedBackend,
    backend: T::Address,
) -> StageResult<SnatMapping<T>> {
    let (connection_slot, port) = (admitted.address.connection_slot, &*admitted.port);
    let (offset, size) = address_range(port, selected);
    if size == 0 {
        return Err(Exit::reject(DropReason::FamilyMismatch, connection_slot));
    }
    let network = hash::mix(env.hash_seed(), u64::from(attachment.network));
    let client_hash = A::mix_into_hash(network, packet.key.source);
    let client_port = u64::from(packet.key.ports.source().raw());
    let socket_hash = hash::mix(client_hash, client_port << 32 | u64::from(packet.protocol));
    let scratch = env
        .scratch()
        .ok_or(Exit::drop(DropReason::ConfigRace, connection_slot))?;
    const { assert!(size_of::<PortAllocation<T>>() <= size_of::<Scratch>()) };
    // SAFETY: the memory is this packet's alone, large enough and aligned; what is in it is written
    // before it is read.
    let allocation = unsafe {
        let pointer = scratch.cast::<PortAllocation<T>>().as_ptr();
        pointer.write(PortAllocation {
            offset,
            size,
            service: port.service,
            is_pool_shared: u32::from(port.flags & Port::SHARED_SNAT_POOL != 0),
            first_address: hash::reduce(upper_half(client_hash), size),
            first_pair: hash::reduce(upper_half(socket_hash), PORT_PAIRS),
            parity: u32::from(packet.key.ports.source().get() & 1),
            outcome: EXHAUSTED,
            key: FlowKey {
                network_proto: NetworkProto::new(port.network, packet.protocol),
                source: backend,
                destination: backend,
                ports: PortPair::new(backend_port(port, packet), Be16::new(0)),
            },
        });
        &mut *pointer
    };
    env.bounded_loop(MAX_ATTEMPTS, allocation);
    match allocation.outcome {
        FOUND => Ok(SnatMapping {
            address: allocation.key.destination,
            port: allocation.key.ports.destination(),
        }),
        TABLE_FULL => Err(Exit::drop(DropReason::FlowTableFull, connection_slot)),
        CONFIG_RACE => Err(Exit::drop(DropReason::ConfigRace, connection_slot)),
        _ => Err(Exit::drop(DropReason::SourceNatExhausted, connection_slot)),
    }
}

/// The search for a source that is free.
struct PortAllocation<T: Family> {
    /// The region of the service's addresses.
    offset: u32,
    size: u32,
    service: u32,
    /// 1 where ports are shared with flows in other tables.
    is_pool_shared: u32,
    first_address: u32,
    first_pair: u32,
    parity: u32,
    /// How it ended.
    outcome: u32,
    /// The key of the reverse entry, whose destination is the source that is tried.
    key: FlowKey<T>,
}

/// How a search ends: numbers, and not an enum, since they are kept in memory (see [`Exit`]).
const EXHAUSTED: u32 = 0;
const FOUND: u32 = 1;
const TABLE_FULL: u32 = 2;
const CONFIG_RACE: u32 = 3;

impl<T: Family, E: PlatformFor<T>> LoopBody<E> for PortAllocation<T> {
    #[inline(always)]
    fn iterate(&mut self, env: &mut E, attempt: u32) -> bool {
        let index = self.first_address + attempt / MAX_ATTEMPTS_PER_ADDRESS;
        let Some(address) = pool_address::<T, E>(env, self, index) else {
            self.outcome = CONFIG_RACE;
            return true;
        };
        // A stride leaves a crowd sooner than the next one up would.
        let pair = (self.first_pair + attempt * STRIDE) % PORT_PAIRS;
        // The client's parity first, the other where that is crowded (RFC 4787, REQ-4).
        let parity = (self.parity + attempt / MAX_ATTEMPTS_PER_PARITY) & 1;
        let port = u32::from(MIN_SOURCE_PORT) + 2 * pair + parity;
        self.key.destination = address;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the last pair ends at 65,535"
        )]
        let port = port as u16;
        self.key.ports = PortPair::new(self.key.ports.source(), Be16::new(port));
        // Most ports that are taken are those of established flows, and looking is cheap.
        if env.lookup_flow(Table::Established, &self.key).is_some() {
            return false;
        }
        let Some(reverse) = FlowTables::<T>::flow_scratch(env) else {
            self.outcome = TABLE_FULL;
            return true;
        };
        // SAFETY: the entry is being built in this packet's own memory, and nothing else refers to
        // it now.
        let reverse = unsafe { &mut *reverse.as_ptr() };
        reverse.compute_checksum_deltas(&self.key);
        match env.insert_flow(Table::HalfOpen, &self.key, reverse) {
            Ok(()) => {}
            Err(InsertError::Exists) => return false,
            Err(InsertError::Full) => {
                self.outcome = TABLE_FULL;
                return true;
            }
        }
        // Established flows enter the other table before they leave this one, so looking there
        // once more misses none.
        if env.lookup_flow(Table::Established, &self.key).is_none()
            && (self.is_pool_shared == 0 || is_free_in_other_family(env, &self.key))
        {
            self.outcome = FOUND;
            return true;
        }
        env.remove_flow(Table::HalfOpen, &self.key);
        false
    }
}

/// Where the source addresses are that suit the backend, and how many.
#[inline(always)]
const fn address_range(port: &Port, selected: &SelectedBackend) -> (u32, u32) {
    if selected.backend.address.to_v4().is_some() {
        (port.nat_offset, port.nat_size_v4)
    } else {
        (port.nat_offset + port.nat_size_v4, port.nat_size_v6)
    }
}

/// Whether no flow of the other family's tables has the source: IPv4's ports are used by flows of
/// IPv4, and by flows that are translated into it. Both insert first and look then, so of two that
/// want the same port at once at most one gets it.
#[inline(always)]
fn is_free_in_other_family<T: Family, E: Platform>(env: &E, key: &FlowKey<T>) -> bool {
    if T::ICMP == protocol::ICMP {
        let key = key.to_mapped();
        return env.lookup_flow(Table::Established, &key).is_none()
            && env.lookup_flow(Table::HalfOpen, &key).is_none();
    }
    let (Some(source), Some(destination)) = (
        T::to_mapped(key.source).to_v4(),
        T::to_mapped(key.destination).to_v4(),
    ) else {
        return true;
    };
    let key = FlowKey::<V4> {
        network_proto: key.network_proto,
        source,
        destination,
        ports: key.ports,
    };
    env.lookup_flow(Table::Established, &key).is_none()
        && env.lookup_flow(Table::HalfOpen, &key).is_none()
}

/// The port on the backend that the segment is for.
#[inline(always)]
pub(crate) fn backend_port<F: Family>(port: &Port, packet: &L4Packet<F>) -> Be16 {
    if port.backend_port == Be16::new(0) {
        packet.key.ports.destination()
    } else {
        port.backend_port
    }
}

/// The address with this index in the region, counted round.
#[inline(always)]
fn pool_address<T: Family, E: Platform>(
    env: &E,
    allocation: &PortAllocation<T>,
    index: u32,
) -> Option<T::Address> {
    let index = index.checked_rem(allocation.size)?;
    env.nat_address(allocation.offset + index)
        .filter(|found| found.service == allocation.service)
        .and_then(|NatAddress { address, .. }| T::to_table_addr(address))
}

#[inline(always)]
fn upper_half(hash: u64) -> u32 {
    (hash >> 32) as u32
}
