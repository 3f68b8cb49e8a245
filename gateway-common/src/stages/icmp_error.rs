//! The gateway's own ICMP errors: why a packet went no further (RFC 792, RFC 4443). The error comes
//! from the address that the packet was for, as an endpoint is the end of its network.

use crate::{
    Be16, Be32, DropReason, Environment, Family, Verdict,
    checksum::Sum,
    family::{Header, pseudo_header},
    maps::Statistic,
    packet::{Ethernet, Icmp, IcmpError, Mac, protocol},
    stages::{limit, parse::L3, transport::Segment},
};

/// Why a packet goes no further.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    /// Nobody can serve it now.
    Host,
    /// The port is not offered.
    Port,
    /// The provider does not allow it.
    Prohibited,
    /// It has come too far.
    Expired,
    /// It is larger than this, in bytes of the family that it arrived in.
    TooBig(u16),
}

impl Cause {
    /// Type and code.
    #[inline(always)]
    const fn kind<F: Family>(self) -> Be16 {
        let v6 = F::ICMP == protocol::ICMPV6;
        match self {
            Self::Host if v6 => IcmpError::HOST_V6,
            Self::Port if v6 => IcmpError::PORT_V6,
            Self::Prohibited if v6 => IcmpError::PROHIBITED_V6,
            Self::Expired if v6 => IcmpError::EXPIRED_V6,
            Self::TooBig(_) if v6 => IcmpError::TOO_BIG_V6,
            Self::Host => IcmpError::HOST,
            Self::Port => IcmpError::PORT,
            Self::Prohibited => IcmpError::PROHIBITED,
            Self::Expired => IcmpError::EXPIRED,
            Self::TooBig(_) => IcmpError::TOO_BIG,
        }
    }

    /// What the rest of the ICMP header says.
    #[inline(always)]
    const fn rest(self) -> Be32 {
        match self {
            Self::TooBig(most) => Be32::new(most as u32),
            _ => Be32::new(0),
        }
    }
}

/// Turns the packet into the error about it, or drops it. The packet is as it came in.
#[inline(always)]
pub(super) fn answer<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    cause: Cause,
    reason: DropReason,
    link: u32,
) -> Verdict {
    let key = &segment.key;
    let station = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    // No errors about later fragments, to groups, or to who can't be a host (RFC 1122, section
    // 3.2.2; RFC 4443, section 2.4 (e)).
    if segment.fragment.is_later()
        || station.is_group()
        || !F::is_host(key.source, key.destination)
        || !limit::refusal(env, link)
    {
        return Verdict::Drop(reason, link);
    }
    match write(env, segment, cause) {
        Some(()) => {
            env.count(Statistic::ErrorsSent);
            Verdict::Error(reason, link)
        }
        None => Verdict::Drop(DropReason::ReplyFailed, link),
    }
}

/// Puts the headers in front of the packet, cut to what an error has of it.
#[inline(always)]
fn write<F: Family, E: Environment>(env: &mut E, segment: &Segment<F>, cause: Cause) -> Option<()> {
    let head = F::Header::OCTETS + Icmp::OCTETS;
    let most = F::LONGEST_ERROR - head;
    let kept = if segment.length > most {
        most
    } else {
        segment.length
    };
    let ethernet = Ethernet::at(env, 0)?;
    let (own, asker) = (ethernet.destination(), ethernet.source());
    let kind = ethernet.ether_type();
    let cut = env.resize(L3 + usize::from(kept));
    if !cut || !env.shift(-i32::from(head)) {
        return None;
    }
    let ethernet = Ethernet::at(env, 0)?;
    ethernet.set_destination(asker);
    ethernet.set_source(own);
    ethernet.set_ether_type(kind);
    let length = kept + Icmp::OCTETS;
    let (from, to) = (segment.key.destination, segment.key.source);
    let header = F::Header::at(env, L3)?;
    header.write(from, to, F::ICMP, length);
    let at = L3 + usize::from(F::Header::OCTETS);
    let icmp = Icmp::at(env, at)?;
    icmp.set_type_and_code(cause.kind::<F>());
    icmp.set_checksum(Be16::new(0));
    icmp.set_rest(cause.rest());
    let checksum = checksum_of::<F, E>(env, at, length, from, to)?;
    Icmp::at(env, at)?.set_checksum(checksum);
    Some(())
}

/// The checksum of an ICMP message whose own field is 0; of one that has its checksum: 0 if it is
/// right.
#[inline(always)]
pub(super) fn checksum_of<F: Family, E: Environment>(
    env: &mut E,
    at: usize,
    length: u16,
    source: F::Address,
    destination: F::Address,
) -> Option<Be16> {
    let message = env.sum(at, usize::from(length))?;
    let pseudo = if F::ICMP == protocol::ICMPV6 {
        pseudo_header::<F>(source, destination, F::ICMP, length)
    } else {
        Sum::ZERO
    };
    Some(message.add(pseudo).checksum())
}
