//! Later fragments. The ports of a datagram are in its first fragment, which is recorded under what all its fragments
//! have in common.
//!
//! Fragments may arrive in any order after the first. A fragment that arrives before the first is dropped and counted,
//! since there is no memory to keep it in (RFC 4787, REQ-14, requires more).

use crate::{
    drop_reason::DropReason,
    family::{Family, Header as _},
    flow::{CoarseTime, DatagramKey, FragmentRecord},
    maps::Attachment,
    packet::{PortPair, Tcp, protocol},
    pipeline::ingress::{ip_packet::IpPacket, l4::L4Packet, parse::drop_packet},
    platform::PlatformFor,
    subprogram::StageResult,
};

/// Time after the first fragment in which later ones are forwarded, in units of coarse time: 32 seconds.
///
/// An identification is not used again for this long and the receiver's reassembly time, so a longer time would
/// allow fewer datagrams. Linux gives up reassembly after 30 seconds.
pub(crate) const MAX_FRAGMENT_DELAY: u32 = 30;

/// Maximum length of a packet that fragments form.
const MAX_DATAGRAM_LEN: u32 = 65_535;

/// Checks the lengths and the offset of a later fragment.
#[inline(always)]
fn check_later_fragment<F: Family>(packet: &IpPacket<F>) -> Result<(), DropReason> {
    let offset = packet.fragment.position & !7;
    let more_follow = packet.fragment.position & 1 != 0;
    if u32::from(offset) + u32::from(packet.payload_len) > MAX_DATAGRAM_LEN
        || (more_follow && !packet.payload_len.is_multiple_of(8))
        || packet.payload_len == 0
    {
        return Err(DropReason::Malformed);
    }
    // The fragment would overwrite the L4 header that was checked (RFC 3128).
    if packet.protocol == protocol::TCP && offset < Tcp::LEN_U16 {
        return Err(DropReason::Fragment);
    }
    Ok(())
}

/// Returns the ports of a later fragment's datagram.
#[inline(always)]
pub(crate) fn lookup_ports<F: Family, E: PlatformFor<F>>(
    env: &E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
) -> StageResult<PortPair> {
    let record = lookup_datagram(env, attachment, packet)?;
    Ok(PortPair::new(record.source, record.destination))
}

/// Returns the record of a later fragment's datagram.
#[inline(always)]
pub(crate) fn lookup_datagram<F: Family, E: PlatformFor<F>>(
    env: &E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
) -> StageResult<FragmentRecord> {
    if let Err(reason) = check_later_fragment(packet) {
        return Err(drop_packet(env, attachment, packet, reason));
    }
    let header = packet.header(env)?;
    let key = DatagramKey::<F> {
        network: attachment.network,
        source: header.source(),
        destination: header.destination(),
        id: packet.fragment.id.raw(),
        protocol: u32::from(packet.protocol),
    };
    match lookup_record(env, &key) {
        Some(record) => Ok(record),
        None => Err(drop_packet(
            env,
            attachment,
            packet,
            DropReason::FragmentOrphan,
        )),
    }
}

/// Returns the record of a datagram unless its first fragment arrived too long ago.
#[inline(always)]
fn lookup_record<F: Family, E: PlatformFor<F>>(
    env: &E,
    key: &DatagramKey<F>,
) -> Option<FragmentRecord> {
    env.fragment_record(key)
        .filter(|record| env.now().since(CoarseTime(record.first_seen)) <= MAX_FRAGMENT_DELAY)
}

/// Returns the key of the datagram that a fragment belongs to.
#[inline(always)]
fn datagram_key<F: Family>(packet: &L4Packet<F>) -> DatagramKey<F> {
    DatagramKey {
        network: packet.key.network_proto.network(),
        source: packet.key.source,
        destination: packet.key.destination,
        id: packet.fragment.id.raw(),
        protocol: packet.protocol.into(),
    }
}

/// Returns the record of a fragment's datagram.
#[inline(always)]
pub(crate) fn lookup_packet_record<F: Family, E: PlatformFor<F>>(
    env: &E,
    packet: &L4Packet<F>,
) -> Option<FragmentRecord> {
    lookup_record(env, &datagram_key(packet))
}

/// Records a first fragment that was forwarded, for the later fragments. `id` is the identification that it left
/// with, and `address_hash` the hash that the identification is unique for. Not inlined, to save stack.
#[inline(never)]
pub(crate) fn record_first_fragment<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    packet: &L4Packet<F>,
    id: u32,
    address_hash: u32,
) {
    let record = FragmentRecord {
        source: packet.key.ports.source(),
        destination: packet.key.ports.destination(),
        first_seen: env.now().0,
        id,
        address_hash,
    };
    env.record_fragment(&datagram_key(packet), &record);
}
