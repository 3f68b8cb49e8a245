//! Echo replies of local addresses (RFC 1122, section 3.2.2.6; RFC 4443, section 4.2).

use crate::{
    checksum::{self, Sum},
    drop_reason::DropReason,
    family::{Family, Header as _},
    flow::{DatagramKey, FragmentRecord},
    maps::Attachment,
    packet::{Ethernet, Icmp, protocol},
    pipeline::ingress::{
        fragment::lookup_datagram,
        ip_packet::IpPacket,
        l4::IcmpMessage,
        local_address::{lookup_local_address, not_local},
    },
    platform::PlatformFor,
    subprogram::{Exit, StageResult},
};

/// Answers an echo request to a local address.
#[inline(always)]
pub(crate) fn reply_echo<F: Family, E: PlatformFor<F>>(
    env: &mut E,
    attachment: &Attachment,
    message: &IcmpMessage<F>,
) -> StageResult<Exit> {
    let header = message.header(env)?;
    let icmp = message.icmp(env)?;
    let (source, destination) = (header.source(), header.destination());
    let Some(address) = lookup_local_address::<F, E>(env, attachment.network, destination) else {
        return Err(not_local(attachment, DropReason::NoSuchEndpoint));
    };
    let drop = |reason| Exit::drop(reason, address.connection_slot);
    let ethernet = Ethernet::at(env, 0).ok_or(drop(DropReason::Truncated))?;
    let (request, reply) = if F::ICMP == protocol::ICMPV6 {
        (Icmp::ECHO_REQUEST_V6, Icmp::ECHO_REPLY_V6)
    } else {
        (Icmp::ECHO_REQUEST, Icmp::ECHO_REPLY)
    };
    if icmp.type_and_code() != request {
        return Err(drop(DropReason::IcmpUnsupported));
    }
    if ethernet.source().is_multicast() || F::is_martian(source, destination) {
        return Err(drop(DropReason::MartianSource));
    }
    let delta = Sum::ZERO.replace16(request, reply);
    icmp.set_type_and_code(reply);
    // The message may be all zeros, for which only all ones verifies.
    icmp.set_checksum(checksum::update_nonzero(icmp.checksum(), delta.fold()));
    // Swapping source and destination leaves every sum unchanged. Resetting the hop limit does not.
    header.set_addresses(destination, source);
    header.reset_hop_limit();
    ethernet.swap_macs(attachment.mac.mac());
    if message.fragment.is_first_fragment() {
        let key = DatagramKey::<F> {
            network: attachment.network,
            source,
            destination,
            id: message.fragment.id.raw(),
            protocol: u32::from(F::ICMP),
        };
        let record = FragmentRecord {
            first_seen: env.now().0,
            ..FragmentRecord::default()
        };
        env.record_fragment(&key, &record);
    }
    Ok(Exit::REPLY)
}

/// Replies to a later fragment of an echo request with the same fragment of the reply.
#[inline(always)]
pub(crate) fn reply_echo_fragment<F: Family, E: PlatformFor<F>>(
    env: &E,
    attachment: &Attachment,
    packet: &IpPacket<F>,
) -> StageResult<Exit> {
    lookup_datagram(env, attachment, packet)?;
    let header = packet.header(env)?;
    let (source, destination) = (header.source(), header.destination());
    let local_address = lookup_local_address::<F, E>(env, attachment.network, destination);
    match (local_address, Ethernet::at(env, 0)) {
        (Some(_), Some(ethernet)) => {
            header.set_addresses(destination, source);
            header.reset_hop_limit();
            ethernet.swap_macs(attachment.mac.mac());
            Ok(Exit::REPLY)
        }
        _ => Err(not_local(attachment, DropReason::NoSuchEndpoint)),
    }
}
