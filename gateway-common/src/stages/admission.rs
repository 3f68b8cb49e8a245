//! Stage 5: who may open a flow. Only a TCP SYN or a UDP datagram, from a possible source, to an
//! endpoint whose connection is approved, and to a port that its resource offers.

use crate::{
    Be16, DropReason, Environment, Family, Step, Turn,
    environment::Shared,
    maps::{Address, Attachment, Port, PortKey},
    packet::Ethernet,
    stages::{
        parse::{not_ours, own_address},
        transport::Segment,
    },
};

/// An endpoint's permission for one new flow.
pub(super) struct Admitted {
    pub(super) address: Address,
    pub(super) port: Shared<Port>,
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
    let link = address.link;
    if !F::is_host(segment.key.source, segment.key.destination)
        || Ethernet::at(env, 0).is_none_or(|e| e.source().is_group())
    {
        return Err(Turn::drop(DropReason::InvalidSource, link));
    }
    let silent = address.flags & Address::SILENT != 0;
    let refuse = |reason| {
        Err(if silent {
            Turn::drop(reason, link)
        } else {
            Turn::refuse(reason, link)
        })
    };
    if address.kind != Address::ENDPOINT || !segment.opens(env) {
        return refuse(DropReason::NoFlow);
    }
    if !address.approved() {
        return refuse(DropReason::ConnectionNotApproved);
    }
    let exact = PortKey {
        resource: address.resource,
        port: segment.key.destination_port,
        #[expect(clippy::cast_possible_truncation, reason = "it came from one byte")]
        protocol: segment.key.protocol as u16,
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
