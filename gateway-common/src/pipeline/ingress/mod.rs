//! Ingress: from the frame to the L4 packet, with every header bounds-checked.
//!
//! ```text
//!   interface ──► attachment ──► network, isolation, MAC address
//!   frame ──────► parse ───────► IpPacket: protocol, offsets, lengths, fragment
//!                   │
//!                   ├─► l4 ────► L4Packet or IcmpMessage
//!                   └─► fragment: ports of later fragments
//! ```

pub(crate) mod attachment;
pub(crate) mod fragment;
pub(crate) mod ip_packet;
pub(crate) mod l4;
pub(crate) mod local_address;
pub(crate) mod parse;

use crate::{
    family::Family,
    maps::Attachment,
    pipeline::ingress::{ip_packet::IpPacket, l4::L4Packet},
    platform::PlatformFor,
    subprogram::StageResult,
};

/// Parses the L4 packet in an IP packet. A later fragment gets the ports of its first fragment.
#[inline(always)]
pub(crate) fn parse_l4_packet<A: Family, E: PlatformFor<A>>(
    env: &E,
    attachment: &Attachment,
    packet: &IpPacket<A>,
) -> StageResult<L4Packet<A>> {
    let ports = if packet.fragment.is_later_fragment() {
        fragment::lookup_ports(env, attachment, packet)?
    } else {
        l4::parse_ports(env, attachment, packet)?
    };
    L4Packet::new(env, attachment, packet, ports)
}
