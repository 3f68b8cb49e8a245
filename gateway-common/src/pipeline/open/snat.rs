//! SNAT: the source address and port that a flow gets in the provider's network.
//!
//! The address depends only on the client's address, so that one client appears under one address ("paired" pooling,
//! RFC 4787, REQ-2). The port depends on the client's address and port, so that one socket of a client appears under
//! one port wherever that is free ("endpoint-independent" mapping, REQ-1), and keeps the parity of the client's port
//! (REQ-4).
//!
//! The backend is part of the reverse entry's key, so an address serves 64,512 flows to each backend, not in total.
//! The insertion of that entry is the reservation: it fails if the entry exists (`BPF_NOEXIST`), so two CPUs can't
//! allocate the same port.

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

/// The lowest source port that is allocated. Lower ports are for services (RFC 6056, section 3.2).
pub const MIN_SOURCE_PORT: u16 = 1024;
/// Number of source ports on each SNAT address, towards each backend.
pub const SOURCE_PORT_COUNT: u32 = 65_536 - MIN_SOURCE_PORT as u32;

/// Number of pairs of an even and an odd port on each SNAT address.
const PORT_PAIRS: u32 = SOURCE_PORT_COUNT / 2;

/// Ports that are tried before the new flow is dropped. With 95 of 100 ports in use, one new flow in a million finds
/// none.
const MAX_ATTEMPTS: u32 = 256;

/// Ports that are tried on one address before the next address.
const MAX_ATTEMPTS_PER_ADDRESS: u32 = 128;

/// Ports that are tried with the client's parity before ports of the other parity.
const MAX_ATTEMPTS_PER_PARITY: u32 = 64;

/// Distance between pairs of ports that are tried. It is coprime to the number of pairs, so every pair is reached.
const STRIDE: u32 = 4_099;

/// The source address and port that a flow gets towards its backend.
pub(crate) struct SnatMapping<F: Family> {
    pub(crate) address: F::Address,
    pub(crate) port: Be16,
}

/// Allocates a source by inserting the reverse entry. The entry has been built in the packet's own memory
/// ([`FlowTables::flow_scratch`]), except for its checksum deltas, which depend on the source.
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
    // SAFETY: the memory belongs to this packet alone, is large enough and aligned, and is written before it is read.
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

/// The search for a free source.
struct PortAllocation<T: Family> {
    /// Range of the service's addresses in `NAT_ADDRESSES`.
    offset: u32,
    size: u32,
    service: u32,
    /// 1 if the addresses also serve flows in the tables of the other family.
    is_pool_shared: u32,
    first_address: u32,
    first_pair: u32,
    parity: u32,
    /// The result of the search.
    outcome: u32,
    /// Key of the reverse entry. Its destination is the source that is tried.
    key: FlowKey<T>,
}

/// Results of a search. They are numbers, not an enum, since they are kept in memory (see [`Exit`]).
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
        // A stride leaves a range of occupied ports sooner than the next port would.
        let pair = (self.first_pair + attempt * STRIDE) % PORT_PAIRS;
        // The client's parity is tried first, the other one where that is occupied (RFC 4787, REQ-4).
        let parity = (self.parity + attempt / MAX_ATTEMPTS_PER_PARITY) & 1;
        let port = u32::from(MIN_SOURCE_PORT) + 2 * pair + parity;
        self.key.destination = address;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the last pair ends at 65,535"
        )]
        let port = port as u16;
        self.key.ports = PortPair::new(self.key.ports.source(), Be16::new(port));
        // Most occupied ports belong to established flows, and a look-up is cheap.
        if env.lookup_flow(Table::Established, &self.key).is_some() {
            return false;
        }
        let Some(reverse) = FlowTables::<T>::flow_scratch(env) else {
            self.outcome = TABLE_FULL;
            return true;
        };
        // SAFETY: the entry is under construction in this packet's own memory, and nothing else refers to it now.
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
        // A flow enters the established table before it leaves the half-open one, so this second look-up misses none.
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

/// Returns the start and the length of the range of SNAT addresses that have the backend's family.
#[inline(always)]
const fn address_range(port: &Port, selected: &SelectedBackend) -> (u32, u32) {
    if selected.backend.address.to_v4().is_some() {
        (port.nat_offset, port.nat_size_v4)
    } else {
        (port.nat_offset + port.nat_size_v4, port.nat_size_v6)
    }
}

/// Returns true if no flow in the tables of the other family has the source.
///
/// The ports of IPv4 addresses serve IPv4 flows and NAT46 flows. Both are inserted before this look-up, so of two
/// flows that try the same port at the same time at most one gets it.
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

/// Returns the destination port of the packet at the backend.
#[inline(always)]
pub(crate) fn backend_port<F: Family>(port: &Port, packet: &L4Packet<F>) -> Be16 {
    if port.backend_port == Be16::new(0) {
        packet.key.ports.destination()
    } else {
        port.backend_port
    }
}

/// Returns the SNAT address at this index, modulo the number of addresses.
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
