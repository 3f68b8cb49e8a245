//! Backend selection by the Maglev table of the endpoint's resource. The table contains only backends that can take a
//! flow, so one look-up decides.

use crate::{
    drop_reason::DropReason,
    family::Family,
    hash,
    maps::{Attachment, Backend, Port},
    pipeline::{ingress::l4::L4Packet, open::admission::Admitted},
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// The backend that was selected for a new flow.
pub(crate) struct SelectedBackend {
    pub(crate) slot: u32,
    pub(crate) backend: Backend,
}

/// Selects the backend. The result depends only on the table and on the packet's addresses, ports and protocol (with
/// session affinity: on the client's address), so a second gateway with the same configuration selects the same.
#[inline(always)]
pub(crate) fn select_backend<F: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    packet: &L4Packet<F>,
    admitted: &Admitted,
) -> StageResult<SelectedBackend> {
    let (connection_slot, port) = (admitted.address.connection_slot, &*admitted.port);
    if port.maglev_size == 0 {
        return Err(if port.flags & Port::DROP_IF_NO_BACKEND != 0 {
            Exit::drop(DropReason::NoBackend, connection_slot)
        } else {
            Exit::reject(DropReason::NoBackend, connection_slot)
        });
    }
    let hash = if port.flags & Port::CLIENT_AFFINITY != 0 {
        let network = hash::mix(env.hash_seed(), u64::from(attachment.network));
        F::mix_into_hash(network, packet.key.source)
    } else {
        tuple_hash(env.hash_seed(), attachment, packet)
    };
    let index = hash::reduce((hash >> 32) as u32, port.maglev_size);
    let found = env
        .maglev(port.maglev_offset + index)
        .and_then(|slot| Some((slot, env.backend(slot)?)));
    match found {
        // The table and the backends are written one after the other: never use another resource's backend.
        Some((slot, backend)) if backend.resource == admitted.address.resource => {
            if backend.reachable == 0 {
                return Err(Exit::reject(DropReason::NoBackend, connection_slot));
            }
            Ok(SelectedBackend { slot, backend })
        }
        _ => Err(Exit::drop(DropReason::ConfigRace, connection_slot)),
    }
}

/// Returns the hash of network, addresses, ports and protocol.
#[inline(always)]
fn tuple_hash<F: Family>(seed: u64, attachment: &Attachment, packet: &L4Packet<F>) -> u64 {
    let key = &packet.key;
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let ports = pair(
        u32::from(key.ports.source().raw()),
        u32::from(key.ports.destination().raw()),
    );
    let hash = hash::mix(seed, pair(attachment.network, packet.protocol.into()));
    let hash = F::mix_into_hash(F::mix_into_hash(hash, key.source), key.destination);
    hash::mix(hash, ports)
}
