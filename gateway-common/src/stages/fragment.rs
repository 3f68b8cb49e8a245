//! Later fragments: their ports were in the first, and are found by what all fragments of a datagram
//! have in common. Fragments may come in any order behind the first; one that comes before it is
//! dropped and counted, since there is no place to keep it (RFC 4787, REQ-14, asks for more).

use crate::{
    DropReason, Environment, Family, Step, Turn,
    family::Header as _,
    flow::{PortPair, Tick},
    maps::{Attachment, DatagramKey},
    packet::{Ethernet, Tcp, protocol},
    stages::parse::{Packet, not_ours, own_address, refuse},
};

/// How long the rest of a datagram is waited for, in ticks: a little over the 60 seconds of RFC 8200,
/// section 4.5.
const LONGEST_WAIT: u32 = 60;

/// The longest packet that fragments can make.
const LONGEST_DATAGRAM: u32 = 65_535;

/// Judges a later fragment by what it says of itself.
#[inline(always)]
fn judge<F: Family>(packet: &Packet<F>) -> Result<(), DropReason> {
    let offset = packet.fragment.position & !7;
    let more = packet.fragment.position & 1 != 0;
    if u32::from(offset) + u32::from(packet.payload) > LONGEST_DATAGRAM
        || (more && !packet.payload.is_multiple_of(8))
        || packet.payload == 0
    {
        return Err(DropReason::Malformed);
    }
    // It would overwrite the header that was judged (RFC 3128).
    if packet.protocol == protocol::TCP && offset < Tcp::OCTETS {
        return Err(DropReason::Fragment);
    }
    Ok(())
}

/// The ports of the fragment's datagram; a fragment of an echo request is answered here.
#[inline(always)]
pub(super) fn follow<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    packet: &Packet<F>,
) -> Step<PortPair> {
    if let Err(reason) = judge(packet) {
        return Err(refuse(env, attachment, packet, reason));
    }
    let header = packet.header(env)?;
    let (source, destination) = (header.source(), header.destination());
    let key = DatagramKey::<F> {
        network: attachment.network,
        source,
        destination,
        id: packet.fragment.id.raw(),
        protocol: u32::from(packet.protocol),
    };
    let ports = F::fragments(env, &key).filter(|p| env.now().since(Tick(p.seen)) <= LONGEST_WAIT);
    let Some(ports) = ports else {
        return Err(refuse(env, attachment, packet, DropReason::FragmentOrphan));
    };
    if packet.protocol == F::ICMP {
        return Err(echo(env, attachment, packet)?);
    }
    Ok(PortPair::new(ports.source, ports.destination))
}

/// The rest of an echo request goes back as the rest of the answer.
#[inline(always)]
fn echo<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    packet: &Packet<F>,
) -> Step<Turn> {
    let header = packet.header(env)?;
    let (source, destination) = (header.source(), header.destination());
    let found = own_address::<F, E>(env, attachment.network, destination);
    match (found, Ethernet::at(env, 0)) {
        (Some(_), Some(ethernet)) => {
            header.set_addresses(destination, source);
            header.renew();
            ethernet.turn_round(attachment.mac.mac());
            Ok(Turn::REPLY)
        }
        _ => Ok(not_ours(attachment, DropReason::NotForUs)),
    }
}
