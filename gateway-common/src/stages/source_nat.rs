//! Stage 7: the address and port in the provider's network from which the consumer appears.
//!
//! The address is chosen by the client's address alone, so that one client appears as one address
//! ("paired" pooling, RFC 4787 REQ-2), and the port by the whole tuple. The backend is part of the
//! reverse entry's key, so one address serves 64,512 flows to each backend, not in all. Reserving
//! is inserting that entry with the demand that it not exist: two CPUs can't take the same port.

use crate::{
    Be16, DropReason, Environment, Family, Step, Verdict,
    environment::InsertError,
    flow::{Flow, FlowKey, Table},
    hash,
    maps::{Attachment, NatAddress, Port},
    stages::{admission::Admitted, backend::Chosen, parse::Segment, reset},
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
pub(super) struct Source<F: Family> {
    pub(super) address: F::Address,
    pub(super) port: Be16,
}

/// Reserves a source by inserting the reverse entry: `reverse`, with its deltas completed here,
/// since they depend on the source.
#[inline(always)]
pub(super) fn reserve<F: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<F>,
    admitted: &Admitted,
    chosen: &Chosen<F>,
    reverse: &mut Flow<F>,
) -> Step<Source<F>> {
    let (link, port) = (admitted.address.link, &admitted.port);
    let (offset, size) = F::nat_region(port);
    if size == 0 {
        return Err(reset::refuse(
            env,
            segment,
            DropReason::FamilyMismatch,
            link,
        ));
    }
    let network = hash::mix(env.seed(), u64::from(attachment.network));
    let client_hash = upper(F::mix(network, segment.key.source));
    let first_address = hash::reduce(client_hash, size);
    // The upper half chose the backend; flows to one backend must still spread over the ports.
    let tuple_hash = F::mix(chosen.hash, chosen.address);
    let first_port = hash::reduce(upper(tuple_hash), PORTS);
    for attempt in 0..ATTEMPTS {
        let address = nat_address::<F, E>(
            env,
            port,
            (offset, size),
            first_address + attempt / ATTEMPTS_PER_ADDRESS,
        );
        let Some(address) = address else {
            return Err(Verdict::Drop(DropReason::Inconsistent, link));
        };
        // A stride that is no divisor of the range visits every port, and leaves a crowd sooner
        // than the next one up would.
        let offset = (first_port + attempt * 4_099) % PORTS;
        let source = Source::<F> {
            address,
            port: Be16::new(FIRST_PORT + offset as u16),
        };
        let key = FlowKey::<F> {
            network: port.network,
            source: chosen.address,
            destination: source.address,
            source_port: backend_port(port, segment),
            destination_port: source.port,
            protocol: segment.key.protocol,
        };
        reverse.complete(&key);
        match F::insert_flow(env, Table::Embryonic, &key, reverse) {
            // Established flows lie in the other table. They enter it before they leave this one,
            // so looking there second misses none.
            Ok(()) => {
                if F::flow(env, Table::Established, &key).is_none() {
                    return Ok(source);
                }
                F::remove_flow(env, Table::Embryonic, &key);
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
pub(super) fn backend_port<F: Family>(port: &Port, segment: &Segment<F>) -> Be16 {
    if port.backend_port == Be16::new(0) {
        segment.key.destination_port
    } else {
        port.backend_port
    }
}

/// The address with this index in a region of the service's, counted round.
#[inline(always)]
fn nat_address<F: Family, E: Environment>(
    env: &E,
    port: &Port,
    (offset, size): (u32, u32),
    index: u32,
) -> Option<F::Address> {
    let index = if index >= size {
        index.saturating_sub(size)
    } else {
        index
    };
    env.nat_address(offset + index)
        .filter(|found| found.service == port.service)
        .and_then(|NatAddress { address, .. }| F::narrow(address))
}

#[inline(always)]
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}
