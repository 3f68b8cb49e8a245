//! Queries: parsing of received frames. Pure.

use std::{net::Ipv6Addr, time::Duration};

use crate::mld::frames::{ICMPV6, MESSAGE_OFFSET, checksum};

/// ICMPv6 type of queries.
const QUERY: u8 = 130;
/// Length of a query of MLDv1.
const V1_LEN: usize = 24;
/// Minimum length of a query of MLDv2 (RFC 3810, section 8.1).
const MIN_V2_LEN: usize = 28;
const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Hop-by-hop options header with the option Router Alert for MLD (RFC 2711), before or after its padding.
const ROUTER_ALERT: [u8; 4] = [5, 2, 0, 0];

/// Version of MLD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryVersion {
    /// RFC 2710.
    V1,
    /// RFC 3810.
    V2,
}

/// Query of a router or a bridge for the groups that are listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Version of the querier.
    pub version: QueryVersion,
    /// Group that is asked for; `None` for all groups.
    pub group: Option<Ipv6Addr>,
    /// Time within which the answer is expected.
    pub max_response: Duration,
}

impl Query {
    /// Parses an Ethernet frame. Returns nothing for anything but a valid query (RFC 3810, section 6.2).
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(14..)?;
        let payload_len = usize::from(u16::from_be_bytes(ip.get(4..6)?.try_into().ok()?));
        let (source, destination) = (address(ip.get(8..24)?)?, address(ip.get(24..40)?)?);
        let options = ip.get(40..48)?;
        let is_query = frame.get(12..14)? == ETHER_TYPE_IPV6
            && ip.first()? >> 4 == 6
            && ip.get(6..8)? == [0, 1]
            && options.get(..2)? == [ICMPV6, 0]
            && (options.get(2..6)? == ROUTER_ALERT || options.get(4..)? == ROUTER_ALERT)
            && source.is_unicast_link_local();
        if !is_query {
            return None;
        }
        let length = payload_len.checked_sub(8)?;
        let message = frame.get(MESSAGE_OFFSET..)?.get(..length)?;
        // The sum over a message with its checksum is zero.
        if *message.first()? != QUERY || checksum(source, destination, message) != 0 {
            return None;
        }
        let code = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
        let version = match length {
            V1_LEN => QueryVersion::V1,
            MIN_V2_LEN.. => QueryVersion::V2,
            _ => return None,
        };
        let milliseconds = match version {
            QueryVersion::V1 => u32::from(code),
            QueryVersion::V2 => max_response_delay(code),
        };
        let group = address(message.get(8..24)?)?;
        Some(Self {
            version,
            group: (!group.is_unspecified()).then_some(group),
            max_response: Duration::from_millis(milliseconds.into()),
        })
    }
}

/// Returns the delay of a response code of MLDv2, in milliseconds (RFC 3810, section 5.1.3).
fn max_response_delay(code: u16) -> u32 {
    if code < 0x8000 {
        return code.into();
    }
    let (exponent, mantissa) = (u32::from(code >> 12 & 7), u32::from(code & 0xfff));
    (mantissa | 0x1000) << (exponent + 3)
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}
