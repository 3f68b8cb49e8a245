//! SNAT: the source address and port that a flow gets in the provider's network.
//!
//! The address depends only on the client's address, so that one client appears under one address ("paired" pooling,
//! RFC 4787, REQ-2). The port depends on the client's address and port, so that one socket of a client appears under
//! one port wherever that is free ("endpoint-independent" mapping, REQ-1), and keeps the parity of the client's port
//! (REQ-4). Where the service asks for it, a client's privileged port gets a privileged one (REQ-3a).
//!
//! The backend is part of the reverse entry's key, so an address serves 64,512 flows to each backend, not in total.
//! The insertion of that entry is the reservation of the port, and the table never has two entries with one key.
//!
//! The port of a closed flow is used again towards the same server at once if the new SYN is beyond the old connection
//! (RFC 6191; RFC 7857, section 2), and otherwise after [`CLOSED_TICKS`](crate::flow::CLOSED_TICKS). If no other port
//! is free, it is used again at once: the server answers such a SYN with an acknowledgement, which the client resets.

use crate::{
    byte_order::Be16,
    drop_reason::DropReason,
    family::{Family, V4, V6},
    flow::{
        CLOSED_TICKS, FlowKey, FlowRef, FlowTables, NetworkProto, PlaceState, TcpFlagsSeen,
        insert::InsertError, memory::LoopBody,
    },
    hash,
    maps::{Attachment, NatAddress, Port},
    packet::{PortPair, protocol},
    pipeline::{
        conntrack::{calls, life},
        ingress::l4::{L4Header, L4Packet},
        open::{admission::Admitted, select_backend::SelectedBackend},
    },
    platform::{Platform, PlatformFor, Scratch},
    subprogram::{Exit, StageResult},
};

/// The lowest source port that is allocated for a client's port that is not privileged. Lower ports are for services
/// (RFC 6056, section 3.2).
pub const MIN_SOURCE_PORT: u16 = 1024;
/// Number of source ports on each SNAT address, towards each backend.
pub const SOURCE_PORT_COUNT: u32 = 65_536 - MIN_SOURCE_PORT as u32;

/// The lowest source port that is allocated for a client's privileged port, where the service preserves those. Servers
/// (NFS: `secure`) accept what is below 1,024, and the ports of well-known services lie below this one.
pub const MIN_PRIVILEGED_PORT: u16 = 512;
/// Number of privileged source ports on each SNAT address, towards each backend.
pub const PRIVILEGED_PORT_COUNT: u32 = (MIN_SOURCE_PORT - MIN_PRIVILEGED_PORT) as u32;

/// Ports that are tried before the new flow is dropped. With 95 of 100 ports in use, one new flow in a million finds
/// none.
const MAX_ATTEMPTS: u32 = 256;

/// Ports that are tried on one address before the next address.
const MAX_ATTEMPTS_PER_ADDRESS: u32 = 128;

/// Ports that are tried with the client's parity before ports of the other parity.
const MAX_ATTEMPTS_PER_PARITY: u32 = 64;

/// Distance between pairs of ports that are tried. It is coprime to the numbers of pairs, so every pair is reached.
const STRIDE: u32 = 4_099;

/// Searches for a free port that other CPUs take at the same time.
const MAX_SEARCHES: u32 = 4;

/// Prepares the search for a source in the packet's own memory.
#[inline(always)]
pub(crate) fn prepare<A: Family, T: Family, E: PlatformFor<T>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &L4Packet<A>,
    admitted: &Admitted,
    selected: &SelectedBackend,
    backend: T::Address,
) -> StageResult<()> {
    let (connection_slot, port) = (admitted.address.connection_slot, &*admitted.port);
    let (offset, size) = address_range(port, selected);
    if size == 0 {
        return Err(Exit::reject(DropReason::FamilyMismatch, connection_slot));
    }
    let network = hash::mix(env.hash_seed(), u64::from(attachment.network));
    let client_hash = A::mix_into_hash(network, packet.key.source);
    let client_port = u64::from(packet.key.ports.source().raw());
    let socket_hash = hash::mix(client_hash, client_port << 32 | u64::from(packet.protocol));
    let (tcp_flags, sequence) = match packet.l4_header(env) {
        L4Header::Tcp(segment) => (segment.flags(), segment.sequence().get()),
        L4Header::Udp(_) | L4Header::None => (TcpFlagsSeen::ACK.0, 0),
    };
    let scratch = env
        .scratch()
        .ok_or(Exit::drop(DropReason::ConfigRace, connection_slot))?;
    const { assert!(size_of::<SnatSearch<T>>() <= size_of::<Scratch>()) };
    // SAFETY: the memory belongs to this packet alone, is large enough and aligned.
    let search = unsafe { &mut *scratch.cast::<SnatSearch<T>>().as_ptr() };
    search.offset = offset;
    search.size = size;
    search.service = port.service;
    search.is_pool_shared = u32::from(port.flags & Port::SHARED_SNAT_POOL != 0);
    search.first_address = hash::reduce(upper_half(client_hash), size);
    let client_port = packet.key.ports.source().get();
    let keeps_range = port.flags & Port::PRIVILEGED_PORTS != 0 && client_port < MIN_SOURCE_PORT;
    (search.min_port, search.pairs) = if keeps_range {
        (MIN_PRIVILEGED_PORT.into(), PRIVILEGED_PORT_COUNT / 2)
    } else {
        (MIN_SOURCE_PORT.into(), SOURCE_PORT_COUNT / 2)
    };
    search.first_pair = hash::reduce(upper_half(socket_hash), search.pairs);
    search.parity = u32::from(client_port & 1);
    search.next_attempt = 0;
    search.closed_attempt = NO_ATTEMPT;
    search.closed_last_seen = u32::MAX;
    search.sequence = sequence;
    search.outcome = EXHAUSTED;
    search.last_error = InsertError::Exists as u32;
    search.tcp_flags = u32::from(tcp_flags);
    search.client = NetworkProto::new(attachment.network, packet.protocol);
    search.key.network_proto = NetworkProto::new(port.network, packet.protocol);
    search.key.source = backend;
    search.key.destination = backend;
    search.key.ports = PortPair::new(backend_port(port, packet), Be16::new(0));
    Ok(())
}

/// Allocates a source by inserting the reverse entry, which was prepared in the packet's own memory
/// ([`FlowTables::flow_scratch`]).
#[inline(always)]
pub(crate) fn allocate_source<T: Family, E: PlatformFor<T>>(
    env: &mut E,
    search: &mut SnatSearch<T>,
) -> Result<FlowRef<T>, DropReason> {
    // The first port is nearly always free, so it is taken without a search for a flow that has it.
    if search.set_source(env, 0)
        && let Ok(reservation) = reserve(env, search)
    {
        return Ok(reservation);
    }
    for _ in 0..MAX_SEARCHES {
        search.outcome = EXHAUSTED;
        env.bounded_loop(MAX_ATTEMPTS, search);
        if search.outcome == EXHAUSTED && search.closed_attempt != NO_ATTEMPT {
            search.take_closed::<E>(env);
        }
        match search.outcome {
            FOUND => {}
            CONFIG_RACE => return Err(DropReason::ConfigRace),
            _ => break,
        }
        match reserve(env, search) {
            Ok(reservation) => return Ok(reservation),
            // Another CPU has taken the port, or its buckets are full. Another port lies in other buckets.
            Err(error) => search.last_error = error as u32,
        }
    }
    if search.last_error == InsertError::Full as u32 {
        return Err(DropReason::FlowTableFull);
    }
    Err(DropReason::SourceNatExhausted)
}

/// Inserts the reverse entry for the port that was found.
#[inline(always)]
fn reserve<T: Family, E: PlatformFor<T>>(
    env: &mut E,
    search: &SnatSearch<T>,
) -> Result<FlowRef<T>, InsertError> {
    let scratch = FlowTables::<T>::flow_scratch(env).ok_or(InsertError::Full)?;
    // SAFETY: the entry is under construction in this packet's own memory, and nothing else refers to it now.
    let reverse = unsafe { &mut *scratch.as_ptr() };
    reverse.compute_checksum_delta(&search.key);
    let reservation = calls::insert::<T, E>(env)?;
    // Both CPUs insert before they look into the other table, so of two that try one port at most one gets it.
    if search.is_pool_shared != 0 && !is_free_in_other_family(env, &search.key, search.sequence) {
        let mut reservation = reservation;
        life::remove_entry(env, &mut reservation);
        return Err(InsertError::Exists);
    }
    Ok(reservation)
}

/// The search for a free source, in the packet's own memory.
#[repr(C)]
pub(crate) struct SnatSearch<T: Family> {
    /// Key of the reverse entry, whose destination is the source that is tried; then key of the other entry. The
    /// insertion expects the key at the beginning of the memory.
    pub(crate) key: FlowKey<T>,
    /// Range of the service's addresses in `NAT_ADDRESSES`.
    offset: u32,
    size: u32,
    service: u32,
    /// 1 if the addresses also serve flows in the table of the other family.
    is_pool_shared: u32,
    first_address: u32,
    /// Range of ports: the lowest one, and the number of pairs of an even and an odd port.
    min_port: u32,
    pairs: u32,
    first_pair: u32,
    parity: u32,
    /// The first attempt that was not made yet.
    next_attempt: u32,
    /// The attempt whose port belonged to the flow that was closed first, of those that should not be used yet.
    closed_attempt: u32,
    closed_last_seen: u32,
    /// TCP: sequence number of the SYN.
    sequence: u32,
    /// The result of the search.
    outcome: u32,
    /// The cause of the last failed insertion, as [`InsertError`].
    last_error: u32,
    /// TCP flags of the packet, or `ACK` for UDP.
    pub(crate) tcp_flags: u32,
    /// Network and protocol of the client.
    pub(crate) client: NetworkProto,
}

/// No attempt.
const NO_ATTEMPT: u32 = u32::MAX;

/// Results of a search. They are numbers, not an enum, since they are kept in memory (see [`Exit`]).
const EXHAUSTED: u32 = 0;
const FOUND: u32 = 1;
const CONFIG_RACE: u32 = 2;

impl<T: Family> SnatSearch<T> {
    /// Sets the key to the source of an attempt. Returns false if the service's addresses have changed.
    #[inline(always)]
    fn set_source<E: PlatformFor<T>>(&mut self, env: &E, attempt: u32) -> bool {
        let index = self.first_address + attempt / MAX_ATTEMPTS_PER_ADDRESS;
        // A stride leaves a range of occupied ports sooner than the next port would.
        let distance = self.first_pair + attempt * STRIDE;
        let (Some(address), Some(pair)) = (
            pool_address::<T, E>(env, self, index),
            distance.checked_rem(self.pairs),
        ) else {
            self.outcome = CONFIG_RACE;
            return false;
        };
        // The client's parity is tried first, the other one where that is occupied (RFC 4787, REQ-4).
        let parity = (self.parity + attempt / MAX_ATTEMPTS_PER_PARITY) & 1;
        let port = self.min_port + 2 * pair + parity;
        self.key.destination = address;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the last pair ends at 65,535"
        )]
        let port = port as u16;
        self.key.ports = PortPair::new(self.key.ports.source(), Be16::new(port));
        true
    }

    /// Takes the port of the flow that was closed first.
    #[inline(always)]
    fn take_closed<E: PlatformFor<T>>(&mut self, env: &mut E) {
        if self.set_source(env, self.closed_attempt) {
            self.closed_attempt = NO_ATTEMPT;
            self.closed_last_seen = u32::MAX;
            if let Some(flow) = calls::lookup::<T, E>(env, &self.key) {
                // Another CPU may have used the port meanwhile.
                if !flow.control.is(PlaceState::Closed) {
                    return;
                }
                calls::remove(env, &flow);
            }
            self.outcome = FOUND;
        }
    }
}

/// Returns true if a SYN with this sequence number may take the port of a flow: the flow has expired, or is closed and
/// its server accepts the SYN.
#[inline(always)]
fn may_take<F: Family, E: PlatformFor<F>>(env: &mut E, flow: &FlowRef<F>, sequence: u32) -> bool {
    if !flow.control.is(PlaceState::Closed) {
        return calls::is_dead(env, flow, 0);
    }
    if env.now().since(flow.entry().last_seen()) >= CLOSED_TICKS {
        return true;
    }
    // The server has acknowledged everything before this number. Beyond it, it accepts a new SYN.
    let distance = sequence.wrapping_sub(flow.last_ack().get());
    flow.flags_seen().0 != 0 && distance != 0 && distance < 1 << 31
}

impl<T: Family, E: PlatformFor<T>> LoopBody<E> for SnatSearch<T> {
    #[inline(always)]
    fn iterate(&mut self, env: &mut E, iteration: u32) -> bool {
        // A search that follows another one goes on where that ended.
        let attempt = self.next_attempt;
        if attempt >= MAX_ATTEMPTS || iteration >= MAX_ATTEMPTS {
            return true;
        }
        self.next_attempt += 1;
        if !self.set_source(env, attempt) {
            return true;
        }
        if self.is_pool_shared != 0 && !is_free_in_other_family(env, &self.key, self.sequence) {
            return false;
        }
        let Some(flow) = calls::lookup::<T, E>(env, &self.key) else {
            self.outcome = FOUND;
            return true;
        };
        if !may_take(env, &flow, self.sequence) {
            let last_seen = flow.entry().last_seen().0;
            if flow.control.is(PlaceState::Closed) && last_seen < self.closed_last_seen {
                self.closed_last_seen = last_seen;
                self.closed_attempt = attempt;
            }
            return false;
        }
        calls::remove(env, &flow);
        self.outcome = FOUND;
        true
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

/// Returns true if no flow in the table of the other family has the source.
///
/// The ports of IPv4 addresses serve IPv4 flows and NAT46 flows. Both are inserted before this look-up, so of two
/// flows that try the same port at the same time at most one gets it.
#[inline(always)]
fn is_free_in_other_family<T: Family, E: Platform>(
    env: &mut E,
    key: &FlowKey<T>,
    sequence: u32,
) -> bool {
    if T::ICMP == protocol::ICMP {
        return is_free::<V6, E>(env, &key.to_mapped(), sequence);
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
    is_free::<V4, E>(env, &key, sequence)
}

/// Returns true if no flow has the key, or removes the flow that has it if a SYN with this sequence number may take its
/// port.
#[inline(never)]
fn is_free<F: Family, E: PlatformFor<F>>(env: &mut E, key: &FlowKey<F>, sequence: u32) -> bool {
    let Some(flow) = calls::lookup::<F, E>(env, key) else {
        return true;
    };
    let is_free = may_take(env, &flow, sequence);
    if is_free {
        calls::remove(env, &flow);
    }
    is_free
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
    search: &SnatSearch<T>,
    index: u32,
) -> Option<T::Address> {
    let index = index.checked_rem(search.size)?;
    env.nat_address(search.offset + index)
        .filter(|found| found.service == search.service)
        .and_then(|NatAddress { address, .. }| T::to_table_addr(address))
}

#[inline(always)]
fn upper_half(hash: u64) -> u32 {
    (hash >> 32) as u32
}
