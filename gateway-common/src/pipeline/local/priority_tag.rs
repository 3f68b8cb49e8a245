//! Priority tags: IEEE 802.1Q tags with the VLAN identifier 0, which carry a priority and no VLAN.
//!
//! A frame with such a tag is an untagged one to its receiver, as to the kernel. The tag is removed before anything else
//! is done, so that the other stages, and the host if the frame is passed, see an untagged frame.

use crate::{
    drop_reason::DropReason,
    maps::{Attachment, NO_CONNECTION},
    packet::{Ethernet, VlanTag},
    pipeline::ingress::local_address::not_local,
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Removes the priority tag of a frame.
#[inline(always)]
pub(crate) fn remove_priority_tag<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
) -> StageResult<Exit> {
    let failed = Exit::drop(DropReason::BufferAdjustFailed, NO_CONNECTION);
    let ethernet = Ethernet::at(env, 0).ok_or(failed)?;
    let (destination, source) = (ethernet.destination(), ethernet.source());
    if !env.adjust_head(i32::from(VlanTag::LEN_U16)) {
        return Err(not_local(attachment, DropReason::BufferAdjustFailed));
    }
    // The EtherType behind the tag is in its place now, and the MAC addresses are four bytes too far in front.
    let ethernet = Ethernet::at(env, 0).ok_or(failed)?;
    ethernet.set_destination(destination);
    ethernet.set_source(source);
    Ok(Exit::UNTAGGED)
}
