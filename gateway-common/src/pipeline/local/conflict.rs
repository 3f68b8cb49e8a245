//! Address conflicts: other hosts that claim a local address (RFC 5227, RFC 4862).

use crate::{
    address::IpAddress,
    drop_reason::DropReason,
    maps::{AddressKey, Attachment, LocalAddress},
    packet::Mac,
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Notes a station that says that an address of ours is its own. One that only asks whether it may
/// have it (a probe) contends for it while we have not taken it ourselves; afterwards it is told
/// that it may not (RFC 5227, sections 2.1.1 and 2.4; RFC 4862, section 5.4.3).
#[inline(always)]
pub(crate) fn detect_conflict<E: Platform>(
    env: &mut E,
    attachment: &Attachment,
    claimant_mac: Mac,
    address: IpAddress,
    is_probe: bool,
) -> StageResult<()> {
    let key = AddressKey {
        network: attachment.network,
        address,
    };
    match env.local_address(&key) {
        Some(found) if claimant_mac != attachment.mac.mac() => {
            if is_probe && found.kind != LocalAddress::TENTATIVE {
                return Ok(());
            }
            env.record_conflict(&key, claimant_mac);
            Err(Exit::drop(
                DropReason::AddressConflict,
                found.connection_slot,
            ))
        }
        _ => Ok(()),
    }
}
