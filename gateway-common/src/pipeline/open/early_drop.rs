//! Early drop: packets that can't open a flow are dropped before the slow path looks up their flow.

use crate::{
    drop_reason::DropReason,
    family::Family,
    maps::{Attachment, LocalAddress},
    pipeline::{
        ingress::l4::L4Packet,
        open::admission::{EndpointState, check_source, lookup_destination, reject_or_drop},
        rate_limit::RejectBudget,
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Drops packets whose destination is not a local address, or is an endpoint that is not approved. A flood of such
/// packets costs no flow look-up in the slow path.
#[inline(always)]
pub(crate) fn early_drop<F: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &L4Packet<F>,
) -> StageResult<()> {
    let address = lookup_destination(env, attachment, packet)?;
    if EndpointState::from_address(&address) != EndpointState::Unapproved {
        return Ok(());
    }
    check_source(env, packet, address.connection_slot)?;
    let (reason, connection_slot) = (DropReason::ConnectionNotApproved, address.connection_slot);
    // In a flood of packets that could open a flow, few are answered. Once the reject budget is spent, the packet is
    // dropped here, which saves the reject subprogram.
    if address.flags & LocalAddress::DROP_UNMATCHED == 0
        && packet.can_open_flow(env)
        && RejectBudget::new(attachment, connection_slot).is_spent(env)
    {
        return Err(Exit::drop(reason, connection_slot));
    }
    Err(reject_or_drop(&address, reason))
}
