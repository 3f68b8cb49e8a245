//! Stage 5: who may open a flow. Only a TCP SYN or a UDP datagram, from a possible source, to an
//! endpoint whose connection is approved, and to a port that its resource offers.

use crate::{
    Be16, DropReason, Environment, Family, Step, Turn,
    environment::Shared,
    maps::{Address, Attachment, Port, PortKey},
    packet::Ethernet,
    stages::{
        limit,
        parse::{not_ours, own_address},
        transport::Segment,
    },
};

/// An endpoint's permission for one new flow.
pub(super) struct Admitted {
    pub(super) address: Address,
    pub(super) port: Shared<Port>,
}

/// Turns away at once what is for none of our addresses, or for an endpoint that is not approved: a flood of
/// that is not worth looking for a flow that is being opened.
#[inline(always)]
pub(super) fn gate<F: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<F>,
) -> Step<()> {
    let found = own_address::<F, E>(env, attachment.network, segment.key.destination);
    let Some(address) = found else {
        return Err(not_ours(attachment, DropReason::NotForUs));
    };
    if address.kind != Address::ENDPOINT || address.approved() {
        return Ok(());
    }
    possible_source(env, segment, address.link)?;
    let (reason, link) = (DropReason::ConnectionNotApproved, address.link);
    // In a flood of what could open a flow, few are told: then the answer need not be begun.
    if address.flags & Address::SILENT == 0 && segment.opens(env) && limit::no_refusal(env, link) {
        return Err(Turn::drop(reason, link));
    }
    Err(refused(&address, reason))
}

/// Only a station can have sent it.
#[inline(always)]
fn possible_source<F: Family, E: Environment>(
    env: &E,
    segment: &Segment<F>,
    link: u32,
) -> Step<()> {
    // Link-local addresses stay on their link (RFC 4291, section 2.5.6; RFC 3927, section 2.7).
    if !F::is_host(segment.key.source, segment.key.destination)
        || F::is_link_local(segment.key.source)
        || Ethernet::at(env, 0).is_none_or(|e| e.source().is_group())
    {
        return Err(Turn::drop(DropReason::InvalidSource, link));
    }
    Ok(())
}

/// The sender is told, unless the endpoint's service is silent.
#[inline(always)]
const fn refused(address: &Address, reason: DropReason) -> Turn {
    if address.flags & Address::SILENT != 0 {
        Turn::drop(reason, address.link)
    } else {
        Turn::refuse(reason, address.link)
    }
}

/// Decides whether the segment may open a flow.
#[inline(always)]
pub(super) fn admit<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    segment: &Segment<F>,
) -> Step<Admitted> {
    let found = own_address::<F, E>(env, attachment.network, segment.key.destination);
    let Some(address) = found else {
        return Err(not_ours(attachment, DropReason::NotForUs));
    };
    possible_source(env, segment, address.link)?;
    let refuse = |reason| Err(refused(&address, reason));
    if address.kind != Address::ENDPOINT || !segment.opens(env) {
        return refuse(DropReason::NoFlow);
    }
    if !address.approved() {
        return refuse(DropReason::ConnectionNotApproved);
    }
    let exact = PortKey {
        resource: address.resource,
        port: segment.key.ports.destination(),
        protocol: segment.protocol.into(),
    };
    let any = PortKey {
        port: Be16::new(0),
        ..exact
    };
    match env.port(&exact).or_else(|| env.port(&any)) {
        Some(port) => Ok(Admitted { address, port }),
        None => refuse(DropReason::PortNotOffered),
    }
}
