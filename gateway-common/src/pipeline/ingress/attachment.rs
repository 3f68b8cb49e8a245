//! The network a packet belongs to is told by where it came in, never by its addresses.

use crate::{
    maps::Attachment,
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// The attachment of the ingress interface. Packets of other interfaces are the host's.
#[inline(always)]
pub(crate) fn find_attachment<E: Platform>(env: &E) -> StageResult<Attachment> {
    env.attachment().ok_or(Exit::PASS)
}
