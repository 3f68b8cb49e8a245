//! Stage 6: the backend, by the Maglev table of the endpoint's resource. The table holds only
//! backends that can take a flow, so one lookup decides.

use crate::{
    DropReason, Environment, Family, Step, Turn, hash,
    maps::{Attachment, Backend, Port},
    stages::{admission::Admitted, transport::Segment},
};

/// The backend that a new flow goes to.
pub(super) struct Chosen {
    pub(super) slot: u32,
    pub(super) backend: Backend,
}

/// Chooses the backend: a function of the flow's tuple (with affinity: of the client's address) and
/// the table alone, so a second gateway with the same configuration chooses the same.
#[inline(always)]
pub(super) fn choose<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    segment: &Segment<F>,
    admitted: &Admitted,
) -> Step<Chosen> {
    let (link, port) = (admitted.address.link, &*admitted.port);
    if port.maglev_size == 0 {
        return Err(if port.flags & Port::DROP_WITHOUT_BACKEND != 0 {
            Turn::drop(DropReason::NoBackend, link)
        } else {
            Turn::refuse(DropReason::NoBackend, link)
        });
    }
    let choice = if port.flags & Port::CLIENT_AFFINITY != 0 {
        let network = hash::mix(env.seed(), u64::from(attachment.network));
        F::mix(network, segment.key.source)
    } else {
        tuple_hash(env.seed(), attachment, segment)
    };
    let place = hash::reduce((choice >> 32) as u32, port.maglev_size);
    let found = env
        .maglev(port.maglev_offset + place)
        .and_then(|slot| Some((slot, env.backend(slot)?)));
    match found {
        // The table and the backends are written one after the other: never take another's.
        Some((slot, backend)) if backend.resource == admitted.address.resource => {
            if backend.reachable == 0 {
                return Err(Turn::refuse(DropReason::NoBackend, link));
            }
            Ok(Chosen { slot, backend })
        }
        _ => Err(Turn::drop(DropReason::Inconsistent, link)),
    }
}

/// The hash of network, addresses, ports and protocol.
#[inline(always)]
fn tuple_hash<F: Family>(seed: u64, attachment: &Attachment, segment: &Segment<F>) -> u64 {
    let key = &segment.key;
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let ports = pair(
        u32::from(key.ports.source().raw()),
        u32::from(key.ports.destination().raw()),
    );
    let hash = hash::mix(seed, pair(attachment.network, segment.protocol.into()));
    let hash = F::mix(F::mix(hash, key.source), key.destination);
    hash::mix(hash, ports)
}
