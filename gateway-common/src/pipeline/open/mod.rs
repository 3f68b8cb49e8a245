//! Opening a flow, which happens for a packet that matches none.
//!
//! ```text
//!   admission ──► select_backend ──► snat ──► create
//!   endpoint,     Maglev             source   both entries in
//!   port                             port     the half-open table
//! ```

pub(crate) mod admission;
pub(crate) mod create;
pub(crate) mod early_drop;
pub(crate) mod select_backend;
pub(crate) mod snat;

use crate::{
    family::{Family, V6},
    flow::Table,
    maps::Attachment,
    packet::protocol,
    pipeline::{
        ingress::{ip_packet::IpPacket, l4::L4Packet, parse_l4_packet},
        open::{create::insert_flow, select_backend::select_backend},
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Returns true if the packet's flow was established between the look-ups in the two tables. A flow enters the
/// established table before it leaves the half-open one, so a second look-up misses none.
#[inline(always)]
fn is_now_established<A: Family, E: PlatformFor<A>>(
    env: &E,
    attachment: &Attachment,
    l4_packet: &L4Packet<A>,
) -> bool {
    env.lookup_flow(Table::Established, &l4_packet.key)
        .is_some()
        || (A::ICMP == protocol::ICMP
            && attachment.is_nat46()
            && env
                .lookup_flow(Table::Established, &l4_packet.key.to_mapped())
                .is_some())
}

/// Opens a flow for a packet that matches none, and has it processed again. Rejects it if admission fails.
#[inline(always)]
pub(crate) fn open_flow<A: Family, E: PlatformFor<A>>(
    env: &mut E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
) -> StageResult<Exit> {
    let l4_packet = parse_l4_packet(env, attachment, packet)?;
    if is_now_established(env, attachment, &l4_packet) {
        return Ok(Exit::SLOW_PATH);
    }
    let admitted = admission::admit(env, attachment, &l4_packet)?;
    let selected = select_backend(env, attachment, &l4_packet, &admitted)?;
    let key = &l4_packet.key;
    if A::ICMP == protocol::ICMPV6 || A::from_mapped(selected.backend.address).is_some() {
        insert_flow::<A, A, E>(env, attachment, &l4_packet, key, &admitted, &selected)?;
    } else {
        let key = key.to_mapped();
        insert_flow::<A, V6, E>(env, attachment, &l4_packet, &key, &admitted, &selected)?;
    }
    Ok(Exit::REPROCESS)
}
