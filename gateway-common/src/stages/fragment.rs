//! Later fragments: their ports were in the first, and are found by what all fragments of a datagram
//! have in common. Fragments may come in any order behind the first; one that comes before it is
//! dropped and counted, since there is no place to keep it (RFC 4787, REQ-14, asks for more).

use crate::{
    DropReason, Environment, Family, Step, Turn,
    family::Header as _,
    flow::{PortPair, Tick},
    maps::{Attachment, DatagramKey, FragmentRecord},
    packet::{Ethernet, Tcp, protocol},
    stages::{
        identification::Identification,
        parse::{Packet, not_ours, own_address, refuse},
        transport::Segment,
    },
};

/// Time after the first fragment in which later ones are forwarded, in ticks: 32 seconds. Identifications are not
/// used again for this long and the receiver's reassembly time, so a longer time would allow fewer
/// datagrams. Linux gives up reassembly after 30 seconds.
pub(super) const LONGEST_WAIT: u32 = 30;

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
    let Some(record) = find(env, &key) else {
        return Err(refuse(env, attachment, packet, DropReason::FragmentOrphan));
    };
    if packet.protocol == F::ICMP {
        return Err(echo(env, attachment, packet)?);
    }
    Ok(PortPair::new(record.source, record.destination))
}

/// Returns the record of a datagram whose first fragment came not too long ago.
#[inline(always)]
fn find<F: Family, E: Environment>(env: &E, key: &DatagramKey<F>) -> Option<FragmentRecord> {
    F::fragments(env, key).filter(|record| env.now().since(Tick(record.seen)) <= LONGEST_WAIT)
}

/// Returns the key of the datagram that a fragment belongs to.
#[inline(always)]
fn datagram<F: Family>(segment: &Segment<F>) -> DatagramKey<F> {
    DatagramKey {
        network: segment.key.realm.network(),
        source: segment.key.source,
        destination: segment.key.destination,
        id: segment.fragment.id.raw(),
        protocol: segment.protocol.into(),
    }
}

/// Returns the record of a fragment's datagram.
#[inline(always)]
pub(super) fn record<F: Family, E: Environment>(
    env: &E,
    segment: &Segment<F>,
) -> Option<FragmentRecord> {
    find(env, &datagram(segment))
}

/// Records a first fragment that was forwarded, for those that follow. A function of its own for its
/// stack.
#[inline(never)]
pub(super) fn note<F: Family, E: Environment>(
    env: &mut E,
    segment: &Segment<F>,
    identification: Identification,
) {
    let record = FragmentRecord {
        source: segment.key.ports.source(),
        destination: segment.key.ports.destination(),
        seen: env.now().0,
        id: identification.id(),
        pair: identification.pair(),
    };
    F::note_fragments(env, &datagram(segment), &record);
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
