//! Admission: the check whether a packet may open a flow. It must be a TCP SYN or a UDP datagram from a valid source,
//! to an endpoint whose connection is approved, and to a port that the endpoint's resource offers.

use crate::{
    byte_order::Be16,
    drop_reason::DropReason,
    family::Family,
    maps::{Attachment, LocalAddress, MapValueRef, Port, PortKey},
    packet::Ethernet,
    pipeline::ingress::{
        l4::L4Packet,
        local_address::{lookup_local_address, not_local},
    },
    platform::Platform,
    subprogram::{Exit, StageResult},
};

/// The permission for one new flow: the endpoint, and the port that the resource offers.
pub(crate) struct Admitted {
    pub(crate) address: LocalAddress,
    pub(crate) port: MapValueRef<Port>,
}

/// The state of the endpoint that a packet is sent to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointState {
    /// The local address is not an endpoint's.
    NotAnEndpoint,
    /// The endpoint's connection is not approved.
    Unapproved,
    /// The endpoint's connection is approved.
    Approved,
}

impl EndpointState {
    /// Returns the state of the endpoint with this local address.
    #[inline(always)]
    pub(crate) const fn from_address(address: &LocalAddress) -> Self {
        if address.kind != LocalAddress::ENDPOINT {
            Self::NotAnEndpoint
        } else if address.is_approved() {
            Self::Approved
        } else {
            Self::Unapproved
        }
    }
}

/// Returns the local address that the packet is sent to.
#[inline(always)]
pub(crate) fn lookup_destination<F: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    packet: &L4Packet<F>,
) -> StageResult<LocalAddress> {
    match lookup_local_address::<F, E>(env, attachment.network, packet.key.destination) {
        Some(address) => Ok(address),
        None => Err(not_local(attachment, DropReason::NoSuchEndpoint)),
    }
}

/// Drops a packet with a martian source.
#[inline(always)]
pub(crate) fn check_source<F: Family, E: Platform>(
    env: &E,
    packet: &L4Packet<F>,
    connection_slot: u32,
) -> StageResult<()> {
    // Link-local addresses are valid on their own link only (RFC 4291, section 2.5.6; RFC 3927, section 2.7).
    if F::is_martian(packet.key.source, packet.key.destination)
        || F::is_link_local(packet.key.source)
        || Ethernet::at(env, 0).is_none_or(|e| e.source().is_multicast())
    {
        return Err(Exit::drop(DropReason::MartianSource, connection_slot));
    }
    Ok(())
}

/// Returns the exit that rejects the packet, or drops it if the endpoint's service does not answer unmatched packets.
#[inline(always)]
pub(crate) const fn reject_or_drop(address: &LocalAddress, reason: DropReason) -> Exit {
    if address.flags & LocalAddress::DROP_UNMATCHED != 0 {
        Exit::drop(reason, address.connection_slot)
    } else {
        Exit::reject(reason, address.connection_slot)
    }
}

/// Checks whether the packet may open a flow.
#[inline(always)]
pub(crate) fn admit<F: Family, E: Platform>(
    env: &E,
    attachment: &Attachment,
    packet: &L4Packet<F>,
) -> StageResult<Admitted> {
    let address = lookup_destination(env, attachment, packet)?;
    check_source(env, packet, address.connection_slot)?;
    let denied = |reason| Err(reject_or_drop(&address, reason));
    let state = EndpointState::from_address(&address);
    if state == EndpointState::NotAnEndpoint || !packet.can_open_flow(env) {
        return denied(DropReason::NoFlow);
    }
    if state == EndpointState::Unapproved {
        return denied(DropReason::ConnectionNotApproved);
    }
    let exact = PortKey {
        resource: address.resource,
        port: packet.key.ports.destination(),
        protocol: packet.protocol.into(),
    };
    let any = PortKey {
        port: Be16::new(0),
        ..exact
    };
    match env.port(&exact).or_else(|| env.port(&any)) {
        Some(port) => Ok(Admitted { address, port }),
        None => denied(DropReason::PortNotOffered),
    }
}
