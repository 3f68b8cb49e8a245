//! Stage 5: who may open a flow. Only a TCP SYN or a UDP datagram, from a possible source, to an
//! endpoint whose connection is approved, and to a port that its resource offers.

use crate::{
    Be16, DropReason, Environment, Family, Step, Verdict,
    maps::{Address, Attachment, Port, PortKey},
    packet::Ethernet,
    stages::{
        parse::{Segment, not_ours},
        reset,
    },
};

/// An endpoint's permission for one new flow.
pub(super) struct Admitted {
    pub(super) address: Address,
    pub(super) port: Port,
}

/// Decides whether the segment may open a flow.
#[inline(always)]
pub(super) fn admit<F: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<F>,
) -> Step<Admitted> {
    let Some(address) = env.address(&segment.address_key()) else {
        return Err(not_ours(attachment, DropReason::NotForUs));
    };
    let link = address.link;
    if !F::is_host(segment.key.source, segment.key.destination)
        || Ethernet::at(env, 0).is_none_or(|e| e.source().is_group())
    {
        return Err(Verdict::Drop(DropReason::InvalidSource, link));
    }
    if address.kind != Address::ENDPOINT || !segment.opens() {
        return Err(reset::refuse(env, segment, DropReason::NoFlow, link));
    }
    if address.approved == 0 {
        return Err(reset::refuse(
            env,
            segment,
            DropReason::ConnectionNotApproved,
            link,
        ));
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
        None => Err(reset::refuse(
            env,
            segment,
            DropReason::PortNotOffered,
            link,
        )),
    }
}
