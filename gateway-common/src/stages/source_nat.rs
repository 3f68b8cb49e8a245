//! Stage 7: the address and port in the provider's network from which the consumer appears.
//!
//! The address is chosen by the client's address alone, so that one client appears as one address
//! ("paired" pooling, RFC 4787 REQ-2), and the port by the client's address and port, so that one
//! socket of a client's appears as one port wherever that is free ("endpoint-independent" mapping,
//! REQ-1), with the parity of the client's (REQ-4). The backend is part of the reverse entry's key,
//! so one address serves 64,512 flows to each backend, not in all. Reserving is inserting that entry
//! with the demand that it not exist: two CPUs can't take the same port.

use crate::{
    Be16, DropReason, Environment, Family, Step, Turn, V4, V6,
    environment::{InsertError, Repeat, Workspace},
    flow::{FlowKey, PortPair, Realm, Table},
    hash,
    maps::{Attachment, NatAddress, Port},
    packet::protocol,
    stages::{admission::Admitted, backend::Chosen, transport::Segment},
};

/// The first port given out; those below are for services (RFC 6056, section 3.2).
pub const FIRST_PORT: u16 = 1024;
/// How many there are from there on, on each address and towards each server.
pub const SOURCE_PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// How many pairs of an even and an odd port there are on one address.
const PAIRS: u32 = SOURCE_PORTS / 2;

/// Ports tried before the new flow is dropped. With 95 of 100 ports in use, one new flow in a
/// million finds none.
const ATTEMPTS: u32 = 256;

/// Ports tried on one address before the next one's turn.
const ATTEMPTS_PER_ADDRESS: u32 = 128;

/// Ports tried of the client's parity before those of the other.
const ATTEMPTS_PER_PARITY: u32 = 64;

/// Ports are tried in steps of this: odd, so that every pair of ports has its turn.
const STRIDE: u32 = 4_099;

/// The source given to a flow.
pub(super) struct Source<F: Family> {
    pub(super) address: F::Address,
    pub(super) port: Be16,
}

/// Reserves a source by inserting the reverse entry, which has been built in the packet's own memory
/// ([`Family::scratch`]) but for its deltas: they depend on the source.
#[inline(always)]
pub(super) fn reserve<A: Family, T: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<A>,
    admitted: &Admitted,
    chosen: &Chosen,
    backend: T::Address,
) -> Step<Source<T>> {
    let (link, port) = (admitted.address.link, &*admitted.port);
    let (offset, size) = region(port, chosen);
    if size == 0 {
        return Err(Turn::refuse(DropReason::FamilyMismatch, link));
    }
    let network = hash::mix(env.seed(), u64::from(attachment.network));
    let client_hash = A::mix(network, segment.key.source);
    let client_port = u64::from(segment.key.ports.source().raw());
    let socket_hash = hash::mix(client_hash, client_port << 32 | u64::from(segment.protocol));
    let workspace = env
        .workspace()
        .ok_or(Turn::drop(DropReason::Inconsistent, link))?;
    const { assert!(size_of::<Search<T>>() <= size_of::<Workspace>()) };
    // SAFETY: the memory is this packet's alone, large enough and aligned; what is in it is written
    // before it is read.
    let search = unsafe {
        let search = workspace.cast::<Search<T>>().as_ptr();
        search.write(Search {
            offset,
            size,
            service: port.service,
            shared: u32::from(port.flags & Port::SHARES_SOURCES != 0),
            first_address: hash::reduce(upper(client_hash), size),
            first_pair: hash::reduce(upper(socket_hash), PAIRS),
            parity: u32::from(segment.key.ports.source().get() & 1),
            outcome: EXHAUSTED,
            key: FlowKey {
                realm: Realm::new(port.network, segment.protocol),
                source: backend,
                destination: backend,
                ports: PortPair::new(backend_port(port, segment), Be16::new(0)),
            },
        });
        &mut *search
    };
    env.repeat(ATTEMPTS, search);
    match search.outcome {
        FOUND => Ok(Source {
            address: search.key.destination,
            port: search.key.ports.destination(),
        }),
        FULL => Err(Turn::drop(DropReason::FlowTableFull, link)),
        INCONSISTENT => Err(Turn::drop(DropReason::Inconsistent, link)),
        _ => Err(Turn::drop(DropReason::SourceNatExhausted, link)),
    }
}

/// The search for a source that is free.
struct Search<T: Family> {
    /// The region of the service's addresses.
    offset: u32,
    size: u32,
    service: u32,
    /// 1 where ports are shared with flows in other tables.
    shared: u32,
    first_address: u32,
    first_pair: u32,
    parity: u32,
    /// How it ended.
    outcome: u32,
    /// The key of the reverse entry, whose destination is the source that is tried.
    key: FlowKey<T>,
}

/// How a search ends: numbers, and not an enum, since they are kept in memory (see [`Turn`]).
const EXHAUSTED: u32 = 0;
const FOUND: u32 = 1;
const FULL: u32 = 2;
const INCONSISTENT: u32 = 3;

impl<T: Family, E: Environment> Repeat<E> for Search<T> {
    #[inline(always)]
    fn step(&mut self, env: &mut E, attempt: u32) -> bool {
        let index = self.first_address + attempt / ATTEMPTS_PER_ADDRESS;
        let Some(address) = nat_address::<T, E>(env, self, index) else {
            self.outcome = INCONSISTENT;
            return true;
        };
        // A stride leaves a crowd sooner than the next one up would.
        let pair = (self.first_pair + attempt * STRIDE) % PAIRS;
        // The client's parity first, the other where that is crowded (RFC 4787, REQ-4).
        let parity = (self.parity + attempt / ATTEMPTS_PER_PARITY) & 1;
        let port = u32::from(FIRST_PORT) + 2 * pair + parity;
        self.key.destination = address;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the last pair ends at 65,535"
        )]
        let port = port as u16;
        self.key.ports = PortPair::new(self.key.ports.source(), Be16::new(port));
        // Most ports that are taken are those of established flows, and looking is cheap.
        if T::flow(env, Table::Established, &self.key).is_some() {
            return false;
        }
        let Some(reverse) = T::scratch(env) else {
            self.outcome = FULL;
            return true;
        };
        // SAFETY: the entry is being built in this packet's own memory, and nothing else refers to
        // it now.
        let reverse = unsafe { &mut *reverse.as_ptr() };
        reverse.complete(&self.key);
        match T::insert_flow(env, Table::Embryonic, &self.key, reverse) {
            Ok(()) => {}
            Err(InsertError::Exists) => return false,
            Err(InsertError::Full) => {
                self.outcome = FULL;
                return true;
            }
        }
        // Established flows enter the other table before they leave this one, so looking there
        // once more misses none.
        if T::flow(env, Table::Established, &self.key).is_none()
            && (self.shared == 0 || is_free_elsewhere(env, &self.key))
        {
            self.outcome = FOUND;
            return true;
        }
        T::remove_flow(env, Table::Embryonic, &self.key);
        false
    }
}

/// Where the source addresses are that suit the backend, and how many.
#[inline(always)]
const fn region(port: &Port, chosen: &Chosen) -> (u32, u32) {
    if chosen.backend.address.to_v4().is_some() {
        (port.nat_offset, port.nat_size_v4)
    } else {
        (port.nat_offset + port.nat_size_v4, port.nat_size_v6)
    }
}

/// Whether no flow of the other family's tables has the source: IPv4's ports are used by flows of
/// IPv4, and by flows that are translated into it. Both insert first and look then, so of two that
/// want the same port at once at most one gets it.
#[inline(always)]
fn is_free_elsewhere<T: Family, E: Environment>(env: &E, key: &FlowKey<T>) -> bool {
    if T::ICMP == protocol::ICMP {
        let key = key.widen();
        return V6::flow(env, Table::Established, &key).is_none()
            && V6::flow(env, Table::Embryonic, &key).is_none();
    }
    let (Some(source), Some(destination)) = (
        T::widen(key.source).to_v4(),
        T::widen(key.destination).to_v4(),
    ) else {
        return true;
    };
    let key = FlowKey::<V4> {
        realm: key.realm,
        source,
        destination,
        ports: key.ports,
    };
    V4::flow(env, Table::Established, &key).is_none()
        && V4::flow(env, Table::Embryonic, &key).is_none()
}

/// The port on the backend that the segment is for.
#[inline(always)]
pub(super) fn backend_port<F: Family>(port: &Port, segment: &Segment<F>) -> Be16 {
    if port.backend_port == Be16::new(0) {
        segment.key.ports.destination()
    } else {
        port.backend_port
    }
}

/// The address with this index in the region, counted round.
#[inline(always)]
fn nat_address<T: Family, E: Environment>(
    env: &E,
    search: &Search<T>,
    index: u32,
) -> Option<T::Address> {
    let index = index.checked_rem(search.size)?;
    env.nat_address(search.offset + index)
        .filter(|found| found.service == search.service)
        .and_then(|NatAddress { address, .. }| T::in_table(address))
}

#[inline(always)]
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}
