//! Local addresses: the addresses that the gateway answers for, and the treatment of packets to others.

use crate::{
    drop_reason::DropReason,
    family::{Family, Header as _},
    maps::{AddressKey, Attachment, LocalAddress, NO_CONNECTION},
    platform::Platform,
    subprogram::Exit,
};

/// Returns the local address with this IP address, if there is one. A tentative address is not in use yet and is
/// treated as absent (RFC 4862, section 5.4; RFC 5227, section 2.1).
#[inline(always)]
pub(crate) fn lookup_local_address<F: Family, E: Platform>(
    env: &E,
    network: u32,
    address: F::Address,
) -> Option<LocalAddress> {
    let address = F::to_mapped(address);
    // The map holds IPv4 addresses as IPv4-mapped ones. An IPv6 packet that carries such an address matches none.
    F::from_mapped(address)?;
    let key = AddressKey { network, address };
    env.local_address(&key)
        .filter(|address| address.kind != LocalAddress::TENTATIVE)
}

/// Returns the exit of a packet whose destination is not a local address: drop on an isolated network, else pass.
#[inline(always)]
pub(crate) fn not_local(attachment: &Attachment, reason: DropReason) -> Exit {
    if attachment.is_isolated() {
        Exit::drop(reason, NO_CONNECTION)
    } else {
        Exit::PASS
    }
}

/// Returns the exit of an invalid packet: drop if its destination is a local address, else as [`not_local`].
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
