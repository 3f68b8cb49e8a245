//! Address conflicts: other hosts that claim a local address (RFC 5227, RFC 4862).

use crate::{
    address::IpAddress,
    drop_reason::DropReason,
    maps::{AddressKey, Attachment, LocalAddress},
    packet::{Ethernet, Mac},
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// Records another host that claims a local address, and drops its packet.
///
/// A probe, which asks whether an address is in use, is a claim only while the address is tentative. Afterwards the
/// reply to the probe defends the address (RFC 5227, sections 2.1.1 and 2.4; RFC 4862, section 5.4.3).
///
/// A host that is about to use an address asks all others (RFC 5227, section 1.1; RFC 4861, section 7.1.1). A switch that
/// tracks devices sends the same message to the gateway's MAC address alone, and claims nothing by it.
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
            if is_probe && (found.kind != LocalAddress::TENTATIVE || !is_sent_to_many::<E>(env)) {
                return Ok(());
            }
            env.record_conflict(&key, claimant_mac, is_probe);
            Err(Exit::drop(
                DropReason::AddressConflict,
                found.connection_slot,
            ))
        }
        _ => Ok(()),
    }
}

/// Returns true if the packet's destination is a multicast or broadcast MAC address.
#[inline(always)]
fn is_sent_to_many<E: Platform>(env: &E) -> bool {
    Ethernet::at(env, 0).is_some_and(|ethernet| ethernet.destination().is_multicast())
}
