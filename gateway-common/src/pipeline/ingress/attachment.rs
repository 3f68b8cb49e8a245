//! The attachment of a packet. It determines the packet's network: addresses never do.

use crate::{
    maps::Attachment,
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Returns the attachment of the ingress interface. Packets of other interfaces are passed to the host.
#[inline(always)]
pub(crate) fn find_attachment<E: Platform>(env: &E) -> StageResult<Attachment> {
    env.attachment().ok_or(Exit::PASS)
}
