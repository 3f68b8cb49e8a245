//! Local addresses: the ones that the gateway answers for, and the packets that are not for them.

use crate::{
    drop_reason::DropReason,
    family::{Family, Header as _},
    maps::{AddressKey, Attachment, LocalAddress, NO_CONNECTION},
    platform::Platform,
    subprogram::Exit,
};

/// What an address is of ours. One that is only tentative is none yet (RFC 4862, section 5.4; RFC
/// 5227, section 2.1).
#[inline(always)]
pub(crate) fn lookup_local_address<F: Family, E: Platform>(
    env: &E,
    network: u32,
    address: F::Address,
) -> Option<LocalAddress> {
    let address = F::to_mapped(address);
    // Configuration has IPv4 addresses mapped into IPv6. An IPv6 packet that carries one means none of them.
    F::from_mapped(address)?;
    let key = AddressKey { network, address };
    env.local_address(&key)
        .filter(|address| address.kind != LocalAddress::TENTATIVE)
}

/// What becomes of a packet that is for none of our addresses.
#[inline(always)]
pub(crate) fn not_local(attachment: &Attachment, reason: DropReason) -> Exit {
    if attachment.is_isolated() {
        Exit::drop(reason, NO_CONNECTION)
    } else {
        Exit::PASS
    }
}

#[inline(always)]
pub(crate) fn drop_for_destination<F: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    header: F::Header,
    reason: DropReason,
) -> Exit {
    match lookup_local_address::<F, E>(env, attachment.network, header.destination()) {
        Some(address) => Exit::drop(reason, address.connection_slot),
        None => not_local(attachment, reason),
    }
}
