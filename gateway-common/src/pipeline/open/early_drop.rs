//! Packets that no flow can be opened for are dropped before the half-open table is searched.

use crate::{
    drop_reason::DropReason,
    family::Family,
    maps::{Attachment, LocalAddress},
    pipeline::{
        ingress::l4::L4Packet,
        open::admission::{EndpointState, check_source, lookup_destination, reject_or_drop},
        rate_limit,
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Turns away at once what is for none of our addresses, or for an endpoint that is not approved: a flood of
/// that is not worth looking for a flow that is being opened.
#[inline(always)]
pub(crate) fn early_drop<F: Family, E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    packet: &L4Packet<F>,
) -> StageResult<()> {
    let address = lookup_destination(env, attachment, packet)?;
    if EndpointState::of(&address) != EndpointState::Unapproved {
        return Ok(());
    }
    check_source(env, packet, address.connection_slot)?;
    let (reason, connection_slot) = (DropReason::ConnectionNotApproved, address.connection_slot);
    // In a flood of what could open a flow, few are told: then the answer need not be begun.
    if address.flags & LocalAddress::DROP_UNMATCHED == 0
        && packet.can_open_flow(env)
        && rate_limit::is_reject_budget_spent(env, connection_slot)
    {
        return Err(Exit::drop(reason, connection_slot));
    }
    Err(reject_or_drop(&address, reason))
}
