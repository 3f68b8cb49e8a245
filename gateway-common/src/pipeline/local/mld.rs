//! Queries of multicast listener discovery (MLD). The agent answers them for the groups of local addresses, so they are
//! passed to the host, which hands them to the agent.

use crate::{
    family::{Family as _, V6},
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

/// Type and length of the option Router Alert (RFC 2711).
const ROUTER_ALERT: u16 = 0x0502;
/// Upper half of the first word of the link-local multicast addresses.
const LINK_LOCAL_MULTICAST: u32 = 0xff02;

/// Returns true if a packet of IPv6 multicast is a query, as a router of the link sends it (RFC 3810, section 5.1). Other
/// packets with options must not reach the host, which would answer them with errors.
#[inline(always)]
pub(crate) fn is_query<E: Platform>(env: &E, header: Ipv6) -> bool {
    if header.next_header() != protocol::HOP_BY_HOP
        || header.hop_limit() != HOP_LIMIT
        || !header.is_version_6()
        || !V6::is_link_local(header.source())
        || header.destination().words()[0].get() >> 16 != LINK_LOCAL_MULTICAST
    {
        return false;
    }
    ExtensionHeader::at(env, OPTIONS_OFFSET).is_some_and(is_router_alert)
        && Icmp::at(env, MESSAGE_OFFSET)
            .is_some_and(|message| message.type_and_code() == Icmp::MULTICAST_LISTENER_QUERY)
}

/// Returns true if options are the option Router Alert for MLD, with padding.
#[inline(always)]
fn is_router_alert(options: ExtensionHeader) -> bool {
    options.next_header() == protocol::ICMPV6
        && options.length() == 0
        && options.options_start().get() == ROUTER_ALERT
        && options.options_end().get() >> 16 == 0
}
