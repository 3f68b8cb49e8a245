//! Queries of multicast listener discovery (MLD). The agent answers them for the groups of local addresses, so they are
//! passed to the host, which hands them to the agent.

use crate::{
    packet::{ExtensionHeader, Icmp, Ipv6, protocol},
    pipeline::ingress::ip_packet::L3_OFFSET,
    platform::Platform,
};

/// Hop limit of queries: no router forwards them (RFC 3810, section 5.1.14).
const HOP_LIMIT: u8 = 1;
/// Offset of the hop-by-hop options header, which holds the option Router Alert.
const OPTIONS_OFFSET: usize = L3_OFFSET + Ipv6::LEN;
/// Offset of the message.
const MESSAGE_OFFSET: usize = OPTIONS_OFFSET + ExtensionHeader::LEN;

/// Returns true if a packet of IPv6 multicast is a query.
#[inline(always)]
pub(crate) fn is_query<E: Platform>(env: &E, header: Ipv6) -> bool {
    if header.next_header() != protocol::HOP_BY_HOP || header.hop_limit() != HOP_LIMIT {
        return false;
    }
    ExtensionHeader::at(env, OPTIONS_OFFSET)
        .is_some_and(|options| options.next_header() == protocol::ICMPV6 && options.length() == 0)
        && Icmp::at(env, MESSAGE_OFFSET)
            .is_some_and(|message| message.type_and_code() == Icmp::MULTICAST_LISTENER_QUERY)
}
