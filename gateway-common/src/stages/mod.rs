//! The stages of a packet's way, one file each, and the way itself.
//!
//! The way is cut into [`Part`]s: what every packet passes, and what few do. In the kernel each is a
//! function that the verifier looks at by itself, and that has the stack to itself; a part that can't
//! go on names the next by its [`Turn`]. Each part reads the headers anew: nothing but the packet is
//! handed on.

mod admission;
mod attachment;
mod backend;
mod established;
mod express;
mod forward;
mod fragment;
mod handshake;
mod icmp_error;
mod icmp_relay;
mod identification;
mod limit;
mod local;
mod neighbour;
mod next_hop;
mod open;
mod options;
mod parse;
mod refusal;
mod reset;
mod rewrite;
mod source_nat;
mod translate;
mod transport;

use parse::{Frame, Packet};
use refusal::Refusal;
use transport::Segment;

use crate::{
    DropReason, Environment, Family, Next, Step, Turn, V4, V6, Verdict,
    flow::{FlowKey, Table},
    maps::{Attachment, NO_LINK, Statistic},
    packet::{EtherType, Ethernet, protocol},
};

pub use identification::{NONE_FREE, Space, allocate};
pub use options::read as syn_options;
pub use source_nat::{FIRST_PORT, SOURCE_PORTS};

/// A part of the way. Two of each, for the two families, but for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A plain packet of an established flow is forwarded; others go on.
    ExpressV4,
    /// The same for IPv6.
    ExpressV6,
    /// Headers are read, the gateway's own addresses answered for, known flows forwarded.
    WayV4,
    /// The same for IPv6.
    WayV6,
    /// A flow is opened; its first packet goes its way once more then.
    OpenV4,
    /// The same for IPv6.
    OpenV6,
    /// The sender is told why its packet goes no further.
    AnswerV4,
    /// The same for IPv6.
    AnswerV6,
    /// An ICMP error goes to the sender of the packet in it.
    RelayV4,
    /// The same for IPv6.
    RelayV6,
    /// An IPv4 packet of a flow whose other side is IPv6 is forwarded.
    TranslateV4,
    /// What is not IP.
    Other,
}

/// Runs a part; the argument is the bits of the turn that led to it, and so is the result.
#[inline(always)]
pub fn run<E: Environment>(env: &mut E, part: Part, argument: u64) -> u64 {
    let turn = match part {
        Part::ExpressV4 => settle(express::express::<V4, E>(env)),
        Part::ExpressV6 => settle(express::express::<V6, E>(env)),
        Part::WayV4 => v4(env, |env, attachment, packet| {
            way(env, attachment, packet, Turn::from_bits(argument))
        }),
        Part::WayV6 => v6(env, |env, attachment, packet| {
            way_v6(env, attachment, packet, Turn::from_bits(argument))
        }),
        Part::OpenV4 => v4(env, open),
        Part::OpenV6 => v6(env, open),
        Part::AnswerV4 => v4(env, |env, attachment, packet| {
            answer(env, attachment, packet, argument)
        }),
        Part::AnswerV6 => v6(env, |env, attachment, packet| {
            answer(env, attachment, packet, argument)
        }),
        Part::RelayV4 => v4(env, relay),
        Part::RelayV6 => v6(env, relay),
        Part::TranslateV4 => v4(env, translate),
        Part::Other => other(env),
    };
    turn.to_bits()
}

/// Decides about one packet, rewrites it, and counts what was decided.
///
/// The verdict is left to be carried out: pass, drop, send back (`Reply`, `Reset`, `Error`), or
/// redirect.
#[inline(always)]
pub fn process<E: Environment>(env: &mut E) -> Verdict {
    let verdict = decide(env);
    match verdict {
        Verdict::Redirect(_) => env.count(Statistic::Forwarded),
        Verdict::Pass => env.count(Statistic::Passed),
        Verdict::Reply => env.count(Statistic::Replied),
        Verdict::Drop(reason, link) | Verdict::Error(reason, link) => env.count_drop(reason, link),
        Verdict::Reset(reason, link) => {
            env.count_drop(reason, link);
            env.count(Statistic::ResetsSent);
        }
    }
    verdict
}

/// Leads the packet from part to part.
#[inline(always)]
fn decide<E: Environment>(env: &mut E) -> Verdict {
    let ether_type = Ethernet::at(env, 0).map(Ethernet::ether_type);
    let mut turn = match ether_type {
        Some(EtherType::IPV4) => Turn::from_bits(env.part(Part::ExpressV4, 0)),
        Some(EtherType::IPV6) => Turn::from_bits(env.part(Part::ExpressV6, 0)),
        _ => Turn::WAY,
    };
    // Nearly all packets end here, so nothing else is looked at before.
    if let Some(slot) = turn.redirects() {
        return Verdict::Redirect(slot);
    }
    let (first, open, answer, relay) = match ether_type {
        Some(EtherType::IPV4) => (Part::WayV4, Part::OpenV4, Part::AnswerV4, Part::RelayV4),
        Some(EtherType::IPV6) => (Part::WayV6, Part::OpenV6, Part::AnswerV6, Part::RelayV6),
        _ => (Part::Other, Part::OpenV4, Part::AnswerV4, Part::RelayV4),
    };
    if turn == Turn::WAY || turn == Turn::MISSED {
        turn = Turn::from_bits(env.part(first, turn.to_bits()));
    }
    if turn == Turn::RELAY {
        turn = Turn::from_bits(env.part(relay, 0));
    }
    if turn == Turn::TRANSLATE {
        turn = Turn::from_bits(env.part(Part::TranslateV4, 0));
    }
    if turn == Turn::OPEN {
        turn = Turn::from_bits(env.part(open, 0));
        if turn == Turn::AGAIN || turn == Turn::WAY {
            turn = Turn::from_bits(env.part(first, turn.to_bits()));
        }
        if turn == Turn::TRANSLATE {
            turn = Turn::from_bits(env.part(Part::TranslateV4, 0));
        }
    }
    if Refusal::of(turn).is_some() {
        turn = Turn::from_bits(env.part(answer, turn.to_bits()));
    }
    match turn.next() {
        Next::Done(verdict) => verdict,
        // What was opened a moment ago is gone again.
        _ => Verdict::Drop(DropReason::Inconsistent, NO_LINK),
    }
}

#[inline(always)]
fn settle(step: Step<Turn>) -> Turn {
    match step {
        Ok(turn) | Err(turn) => turn,
    }
}

/// What is not IP.
#[inline(always)]
fn other<E: Environment>(env: &mut E) -> Turn {
    settle(attachment::find(env).and_then(|attachment| {
        match parse::frame(env, &attachment)? {
            Frame::Arp(arp) => local::arp(env, &attachment, arp),
            // Never: that has a way of its own.
            Frame::Ip => Ok(Turn::PASS),
        }
    }))
}

/// Reads an IPv4 packet's headers for a part of its way.
#[inline(always)]
fn v4<E: Environment>(
    env: &mut E,
    part: impl FnOnce(&mut E, &Attachment, &Packet<V4>) -> Step<Turn>,
) -> Turn {
    settle(attachment::find(env).and_then(|attachment| {
        let packet = parse::ipv4(env, &attachment)?;
        part(env, &attachment, &packet)
    }))
}

/// Reads an IPv6 packet's headers for a part of its way.
#[inline(always)]
fn v6<E: Environment>(
    env: &mut E,
    part: impl FnOnce(&mut E, &Attachment, &Packet<V6>) -> Step<Turn>,
) -> Turn {
    settle(attachment::find(env).and_then(|attachment| {
        let packet = parse::ipv6(env, &attachment)?;
        part(env, &attachment, &packet)
    }))
}

/// The first part for IPv6, which has neighbour discovery beside what IPv4 has.
#[inline(always)]
fn way_v6<E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<V6>,
    before: Turn,
) -> Step<Turn> {
    if let Some(message) = neighbour::message(env, packet) {
        return neighbour::discovered(env, attachment, packet, message);
    }
    if packet.to_group {
        return Err(parse::not_ours(attachment, DropReason::DestinationMac));
    }
    way(env, attachment, packet, before)
}

/// The general way: what is for the gateway itself is answered, what belongs to a flow is forwarded.
/// `before` is the turn that led here.
#[inline(always)]
fn way<A: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<A>,
    before: Turn,
) -> Step<Turn> {
    if !transport::is_known::<A>(packet.protocol) {
        let reason = DropReason::ProtocolUnsupported;
        return Err(parse::refuse(env, attachment, packet, reason));
    }
    if packet.protocol == A::ICMP && !packet.fragment.is_later() {
        let message = transport::message(env, attachment, packet)?;
        if message.is_error() {
            return Err(Turn::RELAY);
        }
        return local::echo(env, attachment, &message);
    }
    let segment = segment(env, attachment, packet)?;
    if let Some(turn) = known::<A, A, E>(env, attachment, &segment, &segment.key, before)? {
        return Ok(turn);
    }
    // Flows between the families are among IPv6's.
    Err(if A::ICMP == protocol::ICMP && attachment.translates() {
        Turn::TRANSLATE
    } else {
        Turn::OPEN
    })
}

/// The segment in the packet, of which a later fragment has only the end.
#[inline(always)]
fn segment<A: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    packet: &Packet<A>,
) -> Step<Segment<A>> {
    let ports = if packet.fragment.is_later() {
        fragment::follow(env, attachment, packet)?
    } else {
        transport::ports(env, attachment, packet)?
    };
    Segment::new(env, attachment, packet, ports)
}

/// A segment of a flow that is known: it is forwarded. What no flow can be opened for is turned away before
/// flows that are being opened are looked through. `before` is the turn that led here: where it was found
/// out that no established flow has the segment, that is not looked for once more.
#[inline(always)]
fn known<A: Family, T: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<A>,
    key: &FlowKey<T>,
    before: Turn,
) -> Step<Option<Turn>> {
    let mut found = None;
    let passed = before == Turn::MISSED || before == Turn::AGAIN;
    if !passed && let Some(flow) = established::find(env, segment, key)? {
        found = Some((flow, next_hop::find(env, &flow)?));
    }
    if found.is_none() {
        if before == Turn::WAY {
            admission::gate(env, attachment, segment)?;
        }
        if let Some(flow) = handshake::find(env, segment, key, before == Turn::AGAIN)? {
            found = Some((flow, next_hop::find(env, &flow)?));
        }
    }
    match found {
        Some((flow, hop)) => forward::forward(env, attachment, segment, &flow, hop).map(Some),
        None => Ok(None),
    }
}

/// An IPv4 packet whose flow may be among IPv6's.
#[inline(always)]
fn translate<E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<V4>,
) -> Step<Turn> {
    let segment = segment(env, attachment, packet)?;
    let key = segment.key.widen();
    known::<V4, V6, E>(env, attachment, &segment, &key, Turn::TRANSLATE)?.ok_or(Turn::OPEN)
}

/// Whether the segment's flow has moved from one table to the other between the looks into them. It enters
/// the one before it leaves the other, so a second look misses none.
#[inline(always)]
fn became_established<A: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    segment: &Segment<A>,
) -> bool {
    A::flow(env, Table::Established, &segment.key).is_some()
        || (A::ICMP == protocol::ICMP
            && attachment.translates()
            && V6::flow(env, Table::Established, &segment.key.widen()).is_some())
}

/// A packet that belongs to no flow opens one, and goes its way once more, or is refused.
#[inline(always)]
fn open<A: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<A>,
) -> Step<Turn> {
    let segment = segment(env, attachment, packet)?;
    if became_established(env, attachment, &segment) {
        return Err(Turn::WAY);
    }
    let admitted = admission::admit(env, attachment, &segment)?;
    let chosen = backend::choose(env, attachment, &segment, &admitted)?;
    let key = &segment.key;
    if A::ICMP == protocol::ICMPV6 || A::narrow(chosen.backend.address).is_some() {
        open::open::<A, A, E>(env, attachment, &segment, key, &admitted, &chosen)?;
    } else {
        let key = key.widen();
        open::open::<A, V6, E>(env, attachment, &segment, &key, &admitted, &chosen)?;
    }
    Err(Turn::AGAIN)
}

/// The sender is told why its packet goes no further; the argument is the turn that wants it told.
#[inline(always)]
fn answer<A: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<A>,
    argument: u64,
) -> Step<Turn> {
    let inconsistent = Turn::drop(DropReason::Inconsistent, NO_LINK);
    let refusal = Refusal::of(Turn::from_bits(argument)).ok_or(inconsistent)?;
    let verdict = refusal::answer(env, attachment, packet, refusal);
    Ok(Turn::new(Next::Done(verdict)))
}

/// An ICMP error goes to the sender of the packet in it.
#[inline(always)]
fn relay<A: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    packet: &Packet<A>,
) -> Step<Turn> {
    let message = transport::message(env, attachment, packet)?;
    icmp_relay::relay(env, attachment, &message)
}
