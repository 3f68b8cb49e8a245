//! Opening a flow, which happens for a packet that matches none.
//!
//! ```text
//!   admission ──► select_backend ──► snat ──► create
//!   endpoint,     Maglev             source   both entries,
//!   port                             port     half-open
//! ```

pub(crate) mod admission;
pub(crate) mod create;
pub(crate) mod early_drop;
pub(crate) mod select_backend;
pub(crate) mod snat;

use crate::{
    family::{Family, V6},
    maps::Attachment,
    packet::protocol,
    pipeline::{
        ingress::{ip_packet::IpPacket, parse_l4_packet},
        open::{create::prepare_flow, select_backend::select_backend},
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Prepares a flow for a packet that matches none. Rejects the packet if admission fails.
#[inline(always)]
pub(crate) fn open_flow<A: Family, E: PlatformFor<A>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
) -> StageResult<Exit> {
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    let admitted = admission::admit(env, attachment, &l4_packet)?;
    let selected = select_backend(env, attachment, &l4_packet, &admitted)?;
    let key = &l4_packet.key;
    if A::ICMP == protocol::ICMPV6 || A::from_mapped(selected.backend.address).is_some() {
        prepare_flow::<A, A, E>(env, attachment, &l4_packet, key, &admitted, &selected)?;
        Ok(Exit::INSERT_FLOW)
    } else {
        let key = key.to_mapped();
        prepare_flow::<A, V6, E>(env, attachment, &l4_packet, &key, &admitted, &selected)?;
        Ok(Exit::INSERT_FLOW_NAT46)
    }
}
