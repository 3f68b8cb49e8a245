//! Stage 7: the address and port in the provider's network from which the consumer appears.
//!
//! The address is chosen by the client's address alone, so that one client appears as one address
//! ("paired" pooling, RFC 4787 REQ-2), and the port by the whole tuple. The backend is part of the
//! reverse entry's key, so one address serves 64,512 flows to each backend, not in all. Reserving
//! is inserting that entry with the demand that it not exist: two CPUs can't take the same port.

use crate::{
    Be16, Be32, DropReason, Environment, Step, Verdict,
    environment::InsertError,
    flow::{Flow, FlowKey, Table},
    hash,
    maps::{Attachment, NatAddress, Port},
    stages::{admission::Admitted, backend::Chosen, parse::Segment},
};

/// The first port given out; those below are for services (RFC 6056, section 3.2).
pub const FIRST_PORT: u16 = 1024;

/// How many there are to choose from on one address.
const PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// Ports tried before the new flow is dropped.
const ATTEMPTS: u32 = 32;

/// Ports tried on one address before the next one's turn.
const ATTEMPTS_PER_ADDRESS: u32 = 16;

/// The source given to a flow.
pub(super) struct Source {
    pub(super) address: Be32,
    pub(super) port: Be16,
}

/// Reserves a source by inserting the reverse entry: `reverse`, with its deltas completed here,
/// since they depend on the source.
#[inline(always)]
pub(super) fn reserve<E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment,
    admitted: &Admitted,
    chosen: &Chosen,
    reverse: &mut Flow,
) -> Step<Source> {
    let (link, port) = (admitted.address.link, &admitted.port);
    let client = u64::from(attachment.network) << 32 | u64::from(segment.key.source.raw());
    let client_hash = upper(hash::mix(env.seed(), client));
    let first_address = hash::reduce(client_hash, port.nat_size);
    // The upper half chose the backend; flows to one backend must still spread over the ports.
    let tuple_hash = hash::mix(chosen.hash, u64::from(chosen.backend.address.raw()));
    let first_port = hash::reduce(upper(tuple_hash), PORTS);
    for attempt in 0..ATTEMPTS {
        let address = nat_address(env, port, first_address + attempt / ATTEMPTS_PER_ADDRESS);
        let Some(address) = address else {
            return Err(Verdict::Drop(DropReason::Inconsistent, link));
        };
        // A stride that is no divisor of the range visits every port, and leaves a crowd sooner
        // than the next one up would.
        let offset = (first_port + attempt * 4_099) % PORTS;
        let source = Source {
            address,
            port: Be16::new(FIRST_PORT + offset as u16),
        };
        let key = FlowKey {
            network: port.network,
            source: chosen.backend.address,
            destination: source.address,
            source_port: backend_port(port, segment),
            destination_port: source.port,
            protocol: segment.key.protocol,
        };
        reverse.complete(&key);
        match env.insert_flow(Table::Embryonic, &key, reverse) {
            // Established flows lie in the other table. They enter it before they leave this one,
            // so looking there second misses none.
            Ok(()) => {
                if env.flow(Table::Established, &key).is_none() {
                    return Ok(source);
                }
                env.remove_flow(Table::Embryonic, &key);
            }
            Err(InsertError::Exists) => {}
            Err(InsertError::Full) => {
                return Err(Verdict::Drop(DropReason::FlowTableFull, link));
            }
        }
    }
    Err(Verdict::Drop(DropReason::SourceNatExhausted, link))
}

/// The port on the backend that the segment is for.
#[inline(always)]
pub(super) fn backend_port(port: &Port, segment: &Segment) -> Be16 {
    if port.backend_port == Be16::new(0) {
        segment.key.destination_port
    } else {
        port.backend_port
    }
}

/// The service's NAT address with this index, counted round.
#[inline(always)]
fn nat_address<E: Environment>(env: &E, port: &Port, index: u32) -> Option<Be32> {
    let index = if index >= port.nat_size {
        index.saturating_sub(port.nat_size)
    } else {
        index
    };
    env.nat_address(port.nat_offset + index)
        .filter(|found| found.service == port.service)
        .map(|NatAddress { address, .. }| address)
}

#[inline(always)]
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}
