//! Drop reasons: the counted causes of packets that are not forwarded.
//!
//! A reason has a number, which indexes the counters, a stable name for metrics, and one sentence for people. The
//! table in `docs/operation.md` has the same sentences, which a test compares.

macro_rules! drop_reasons {
    ($($variant:ident = $number:literal, $name:literal, $text:literal;)+) => {
        /// Cause of a packet that was dropped or rejected.
        ///
        /// The number indexes the counters, so it is part of the map layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $text] $variant = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the reason's stable name, as metrics and tables show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Returns one sentence that explains the reason.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

drop_reasons! {
    NoSuchEndpoint = 0, "no_such_endpoint", "Packet received on an isolated network for an address that is neither an endpoint's nor used for SNAT.";
    DestinationMac = 1, "destination_mac", "Packet received on an isolated network with a destination MAC address that is not the gateway's, or is multicast where unicast is required.";
    Truncated = 2, "truncated", "Frame is shorter than its headers state.";
    Malformed = 3, "malformed", "Header fields contradict each other, for example version, header length and total length.";
    EtherTypeUnsupported = 4, "ether_type_unsupported", "Frame received on an isolated network is neither IPv4, IPv6 nor ARP.";
    VlanTagged = 5, "vlan_tagged", "VLAN-tagged frame received on an isolated network, whose attachments are untagged.";
    Ipv4Options = 6, "ipv4_options", "IPv4 header carries options, which the gateway does not forward.";
    Fragment = 7, "fragment", "Fragment is too short for its L4 header, would overwrite it, or can't be translated between address families.";
    ProtocolUnsupported = 8, "protocol_unsupported", "Packet to a local address is neither TCP, UDP nor ICMP.";
    TtlExpired = 9, "ttl_expired", "TTL or hop limit reached zero at the gateway.";
    MartianSource = 10, "martian_source", "Source address is unspecified, loopback, multicast, broadcast, reserved, link-local or equal to the destination, or the source MAC address is multicast (RFC 1812).";
    ConnectionNotApproved = 11, "connection_not_approved", "Connection of the endpoint is not approved by the provider.";
    ConnectionRevoked = 12, "connection_revoked", "Flow was opened under an approval that has since been revoked.";
    PortNotOffered = 13, "port_not_offered", "Resource of the endpoint does not offer this port.";
    NoFlow = 14, "no_flow", "Packet matches no flow and can't open one.";
    NoBackend = 15, "no_backend", "No backend of the resource can take a flow.";
    BackendRemoved = 16, "backend_removed", "Backend of the flow was removed from the service, or failed its health check.";
    SourceNatExhausted = 17, "source_nat_exhausted", "No free source port was found on the service's SNAT addresses.";
    FlowTableFull = 18, "flow_table_full", "Flow table has no place for another flow.";
    ChecksumOffloadFailed = 19, "checksum_offload_failed", "Checksum that was left to offload, or that the other address family requires, could not be computed.";
    EgressUnavailable = 20, "egress_unavailable", "Egress interface is missing, is down, or belongs to another network now.";
    PacketTooBig = 21, "packet_too_big", "Packet exceeds the MTU of the egress interface or its network.";
    IcmpUnsupported = 22, "icmp_unsupported", "ICMP message to a local address is neither an echo request nor an error about a packet of a flow.";
    ConfigRace = 23, "config_race", "Configuration or flow changed while the packet was processed: a retransmission succeeds.";
    UnknownNeighbourTarget = 24, "unknown_neighbour_target", "ARP or neighbour discovery message received on an isolated network asks for no local address.";
    BufferAdjustFailed = 25, "buffer_adjust_failed", "Kernel refused to resize the packet buffer.";
    FamilyMismatch = 26, "family_mismatch", "Service has no SNAT address of the backend's address family.";
    ExtensionHeaders = 27, "extension_headers", "IPv6 packet has more extension headers than the gateway parses, or one that hides the headers behind it.";
    FragmentOrphan = 28, "fragment_orphan", "Later fragment arrived before its first fragment, or too long after it.";
    ChecksumWrong = 29, "checksum_wrong", "Checksum of an ICMP error, of the IPv4 header embedded in it, or of a neighbour discovery message is wrong.";
    ResetOutOfWindow = 30, "reset_out_of_window", "TCP reset has a sequence number outside of the receive window, so its receiver would ignore it (RFC 5961).";
    FlowLimit = 31, "flow_limit", "Endpoint has as many flows as its connection may have.";
    NewFlowRate = 32, "new_flow_rate", "Endpoint opens flows faster than its connection may.";
    PacketRate = 33, "packet_rate", "Endpoint exceeds its connection's limit of packets or bits a second.";
    AddressConflict = 34, "address_conflict", "Another host claims a local address, or probes for one that the gateway is still probing (RFC 5227, RFC 4862).";
    RoutingHeader = 35, "routing_header", "IPv6 routing header has segments left, so the receiver would send the packet on to another address.";
    Ipv6Options = 36, "ipv6_options", "IPv6 hop-by-hop or destination options header holds more than padding, which the gateway does not forward.";
    MappedAddress = 37, "mapped_address", "IPv6 packet carries an IPv4-mapped address, which must not appear on the wire (RFC 4291).";
    FragmentIdExhausted = 38, "fragment_id_exhausted", "Fragmented datagrams between the same two addresses used every identification whose fragments the receiver may still hold (RFC 6864).";
    FlowTableShare = 39, "flow_table_share", "Endpoint has more established flows than its share of the flow table, which shrinks as the table fills.";
    TransmitFailed = 40, "transmit_failed", "Driver of the egress interface did not take the frame: its queue is full, or it is a veth whose far end has GRO switched off or a smaller MTU. The frame was counted as forwarded before.";
    ArpInvalid = 41, "arp_invalid", "ARP message is not about IPv4 addresses over Ethernet, or is neither a request nor a reply (RFC 826).";
    NeighbourMessageInvalid = 42, "neighbour_message_invalid", "Neighbour solicitation or advertisement must be discarded: its hop limit, code, length, target, options, source or destination are not valid (RFC 4861, section 7.1).";
    IcmpLaterFragment = 43, "icmp_later_fragment", "ICMP error quotes a later fragment, which has no ports that would tell its flow.";
}

impl DropReason {
    /// Number of reasons: the length of an array that is indexed by reason.
    pub const COUNT: usize = Self::ALL.len();

    /// Returns the reason with this number, or the last reason if there is none.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "numbers are bytes")]
    pub(crate) const fn from_byte(number: u8) -> Self {
        let number = if number as usize >= Self::COUNT {
            Self::COUNT as u8 - 1
        } else {
            number
        };
        // SAFETY: the reasons are numbered without gaps, as a test shows, and `number` is at most the last.
        unsafe { core::mem::transmute::<u8, Self>(number) }
    }

    /// Returns the reason with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// The drop reason of a packet, and the connection that the drop is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// The drop reason.
    pub reason: DropReason,
    /// The connection's slot, or [`NO_CONNECTION`](crate::maps::NO_CONNECTION).
    pub connection_slot: u32,
}

impl Attribution {
    /// Attributes a drop to a reason and a connection.
    #[inline(always)]
    #[must_use]
    pub const fn new(reason: DropReason, connection_slot: u32) -> Self {
        Self {
            reason,
            connection_slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices_of_all() {
        for (index, reason) in (0u32..).zip(DropReason::ALL) {
            assert_eq!(*reason as u32, index, "{reason:?}");
            assert_eq!(DropReason::from_number(index), Some(*reason));
        }
        assert_eq!(DropReason::from_number(u32::MAX), None);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::HashSet<_> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
    }

    #[test]
    fn operation_manual_describes_each_reason() {
        let manual = include_str!("../../docs/operation.md");
        for reason in DropReason::ALL {
            let row = format!("| `{}` | {} |", reason.name(), reason.description());
            assert!(manual.contains(&row), "docs/operation.md lacks: {row}");
        }
    }
}
