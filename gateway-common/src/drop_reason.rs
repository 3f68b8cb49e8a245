//! Why a packet was not forwarded: one value, one counter, one sentence each.

macro_rules! drop_reasons {
    ($($variant:ident = $number:literal, $name:literal, $text:literal;)+) => {
        /// Why a packet was dropped, or answered with a reset instead of being forwarded.
        ///
        /// The number indexes the counters, so it is part of the maps' layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $text] $variant = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The reason's stable name, as metrics and tables show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// One sentence for the person who looks it up.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

drop_reasons! {
    NotForUs = 0, "not_for_us", "An isolated attachment received a packet for an address that is none of its endpoints'.";
    DestinationMac = 1, "destination_mac", "The frame was sent to another station, or to a group, though the address in it needs ours.";
    Truncated = 2, "truncated", "The frame ends before the headers that it announces.";
    Malformed = 3, "malformed", "A header contradicts itself: version, header length or total length.";
    EtherTypeUnsupported = 4, "ether_type_unsupported", "An isolated attachment received a frame that is neither IPv4, IPv6 nor ARP.";
    VlanTagged = 5, "vlan_tagged", "A VLAN-tagged frame arrived at an untagged attachment.";
    Ipv4Options = 6, "ipv4_options", "The IPv4 header carries options, which the gateway does not forward.";
    Fragment = 7, "fragment", "The fragment is too short for its transport header, would overwrite it, or can't be translated.";
    ProtocolUnsupported = 8, "protocol_unsupported", "The packet for one of our addresses is neither TCP, UDP nor an echo request.";
    TtlExpired = 9, "ttl_expired", "The packet's time to live ran out at the gateway.";
    InvalidSource = 10, "invalid_source", "The source can't be a host that is talked to through a router: unspecified, loopback, multicast, broadcast, link-local, or the destination itself.";
    ConnectionNotApproved = 11, "connection_not_approved", "The endpoint's connection is not approved by the provider.";
    ConnectionRevoked = 12, "connection_revoked", "The flow was opened under an approval that has been withdrawn since.";
    PortNotOffered = 13, "port_not_offered", "The endpoint's resource offers no such port.";
    NoFlow = 14, "no_flow", "The packet belongs to no flow and can't open one.";
    NoBackend = 15, "no_backend", "No backend of the resource can take a flow.";
    BackendGone = 16, "backend_gone", "The flow's backend was removed from the service, or failed its health check.";
    SourceNatExhausted = 17, "source_nat_exhausted", "No free source port was found on the service's NAT addresses.";
    FlowTableFull = 18, "flow_table_full", "The table of new flows did not take another entry.";
    ChecksumRepair = 19, "checksum_repair", "A checksum that was offloaded, or is needed in the other family, could not be computed.";
    EgressGone = 20, "egress_gone", "The interface towards the other network is gone, down, or belongs to another network now.";
    PacketTooBig = 21, "packet_too_big", "The packet is larger than the MTU of the interface it has to leave by.";
    IcmpUnsupported = 22, "icmp_unsupported", "An ICMP message came to one of our addresses that is neither an echo request nor an error about a flow's packet.";
    Inconsistent = 23, "inconsistent", "The configuration changed while the packet was being looked at; the sender's next try finds it whole.";
    ArpIgnored = 24, "arp_ignored", "An isolated attachment received ARP or neighbour discovery that asks for none of our addresses.";
    ReplyFailed = 25, "reply_failed", "The kernel did not let the packet be cut down to the answer to it.";
    FamilyMismatch = 26, "family_mismatch", "The service has no source NAT address of the backend's family.";
    ExtensionHeaders = 27, "extension_headers", "The IPv6 packet has more extension headers than are walked, or one that hides what is behind it.";
    FragmentOrphan = 28, "fragment_orphan", "A later fragment came without its first, or too long after it.";
    ChecksumWrong = 29, "checksum_wrong", "An ICMP error's checksum, or that of the IPv4 header in it, is wrong.";
    ResetOutOfWindow = 30, "reset_out_of_window", "A TCP reset's sequence number is outside of the window: its receiver would not believe it.";
    FlowLimit = 31, "flow_limit", "The endpoint has as many flows as its connection may have.";
    NewFlowRate = 32, "new_flow_rate", "The endpoint opens flows faster than its connection may.";
    PacketRate = 33, "packet_rate", "The endpoint's packets or bits a second exceed its connection's limit.";
    AddressConflict = 34, "address_conflict", "Another station uses an address of ours, or asks for it.";
    RoutingHeader = 35, "routing_header", "An IPv6 routing header has segments left: its receiver would send the packet on to another address.";
    Ipv6Options = 36, "ipv6_options", "A hop-by-hop or destination options header of IPv6 holds more than padding, which the gateway does not forward.";
    MappedAddress = 37, "mapped_address", "An IPv6 packet has an IPv4-mapped address, which no packet may carry.";
    FragmentIdExhausted = 38, "fragment_id_exhausted", "Fragmented datagrams between the same two addresses took every identification that their receiver may still hold fragments of.";
}

impl DropReason {
    /// How many there are: the size of an array with a place for each.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason with this number; the last one for numbers that none has.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "numbers are bytes")]
    pub(crate) const fn from_byte(number: u8) -> Self {
        let number = if number as usize >= Self::COUNT {
            Self::COUNT as u8 - 1
        } else {
            number
        };
        // SAFETY: the reasons are numbered without a gap, as a test shows, and this is one of the
        // numbers.
        unsafe { core::mem::transmute::<u8, Self>(number) }
    }

    /// The reason with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (place, reason) in (0u32..).zip(DropReason::ALL) {
            assert_eq!(*reason as u32, place, "{reason:?}");
            assert_eq!(DropReason::from_number(place), Some(*reason));
        }
        assert_eq!(DropReason::from_number(u32::MAX), None);
    }

    #[test]
    fn names_differ() {
        let names: std::collections::HashSet<_> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
    }

    #[test]
    fn the_manual_explains_each() {
        let manual = include_str!("../../docs/operation.md");
        for reason in DropReason::ALL {
            let row = format!("| `{}` | {} |", reason.name(), reason.description());
            assert!(manual.contains(&row), "docs/operation.md lacks: {row}");
        }
    }
}
