//! Stage 1: the network a packet belongs to is told by where it came in, never by its addresses.

use crate::{Environment, Step, Turn, maps::Attachment};

/// The attachment of the ingress interface. Packets of other interfaces are the host's.
#[inline(always)]
pub(super) fn find<E: Environment>(env: &E) -> Step<Attachment> {
    env.attachment().ok_or(Turn::PASS)
}
