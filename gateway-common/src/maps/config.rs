//! Configuration maps: the agent writes them, and the data path reads them.

use crate::{
    address::IpAddress,
    byte_order::Be16,
    flow::{FlowTimeouts, MAX_BACKEND_SLOTS, MAX_CONNECTION_SLOTS, MAX_EGRESS_SLOTS},
    packet::{Mac, PackedMac},
};

use bytemuck::{Pod, Zeroable};

/// Number of entries in the direct-mapped array of attachments.
pub const ATTACHMENT_BUCKETS: u32 = 16_384;

/// Maximum number of connections: entries in `CONNECTIONS` and `CONN_COUNTERS`.
pub const MAX_CONNECTIONS: u32 = 131_072;
/// Maximum number of attachments: entries in `EGRESS` and `TX_PORTS`.
pub const MAX_ATTACHMENTS: u32 = 16_384;
/// Number of entries in `MAGLEV`, over all resources.
pub const MAX_MAGLEV_ENTRIES: u32 = 1 << 22;
/// Maximum number of backends: entries in `BACKENDS`.
pub const MAX_BACKENDS: u32 = 65_536;
const _: () = assert!(MAX_BACKENDS <= MAX_BACKEND_SLOTS);
const _: () = assert!(MAX_CONNECTIONS <= MAX_CONNECTION_SLOTS);
const _: () = assert!(MAX_ATTACHMENTS <= MAX_EGRESS_SLOTS);
/// Number of entries in `NAT_ADDRESSES`.
pub const MAX_NAT_ADDRESSES: u32 = 65_536;

/// The connection slot of packets that concern no connection.
pub const NO_CONNECTION: u32 = u32::MAX;

/// Returns the index of an interface in the array of attachments.
#[inline(always)]
#[must_use]
pub const fn attachment_index(ifindex: u32) -> u32 {
    ifindex % ATTACHMENT_BUCKETS
}

/// An interface through which the gateway is connected to a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Attachment {
    /// Interface index. The array index alone does not identify the interface, since several may share it.
    pub ifindex: u32,
    /// Network that the interface belongs to. 0 is no network.
    pub network: u32,
    /// Attachment slot: the index in `EGRESS` and `TX_PORTS`.
    pub slot: u32,
    /// A combination of [`Attachment::ISOLATED`], [`Attachment::PASS_ARP_ND`] and
    /// [`Attachment::NAT46`].
    pub flags: u32,
    /// MAC address of the interface.
    pub mac: PackedMac,
}

impl Attachment {
    /// No packet that arrives here is passed to the host, unless [`Attachment::PASS_ARP_ND`] allows it.
    pub const ISOLATED: u32 = 1;
    /// ARP replies and neighbour advertisements are passed to the host, which resolves backends here.
    pub const PASS_ARP_ND: u32 = 2;
    /// IPv4 packets that arrive here may belong to NAT46 flows, whose other side is IPv6. Those flows lie in the
    /// tables of IPv6, and cost IPv4 packets a second look-up on these attachments only.
    pub const NAT46: u32 = 4;

    /// Returns true if IPv4 packets are looked up in the tables of IPv6 too.
    #[inline(always)]
    #[must_use]
    pub const fn is_nat46(&self) -> bool {
        self.flags & Self::NAT46 != 0
    }

    /// Returns true if packets that are not for a local address are dropped, not passed to the host.
    #[inline(always)]
    #[must_use]
    pub const fn is_isolated(&self) -> bool {
        self.flags & Self::ISOLATED != 0
    }
}

/// The sending side of an attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Egress {
    /// Network that the interface belongs to. 0 while the slot is free, or the interface is down or has no
    /// carrier.
    pub network: u32,
    /// Maximum length of an IP packet, in bytes.
    pub mtu: u16,
    /// Padding that aligns `mac`.
    pub reserved: u16,
    /// Source MAC address of frames that leave here.
    pub mac: PackedMac,
}

/// Identifies a local address: an address that the gateway answers for, in one network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey {
    /// Network number.
    pub network: u32,
    /// IP address.
    pub address: IpAddress,
}

/// The kind and the owner of a local address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LocalAddress {
    /// [`LocalAddress::ENDPOINT`], [`LocalAddress::NAT`] or [`LocalAddress::TENTATIVE`].
    pub kind: u16,
    /// A combination of [`LocalAddress::APPROVED`] and [`LocalAddress::DROP_UNMATCHED`].
    pub flags: u16,
    /// Connection slot of the endpoint, or [`NO_CONNECTION`] for an SNAT address.
    pub connection_slot: u32,
    /// Generation of the connection. A flow that is opened now belongs to it.
    pub generation: u32,
    /// Resource that the endpoint is bound to.
    pub resource: u32,
}

impl LocalAddress {
    /// Kind: an endpoint's private address in its consumer's network.
    pub const ENDPOINT: u16 = 1;
    /// Kind: an SNAT address in the provider's network, from which consumers appear. No new flow gets it once it is no
    /// longer in `NAT_ADDRESSES`.
    pub const NAT: u16 = 2;
    /// Kind: an address of an endpoint or of SNAT that is still being probed (RFC 5227, RFC 4862). Packets to it are
    /// neither answered nor forwarded.
    pub const TENTATIVE: u16 = 3;

    /// Flag: the endpoint's connection is approved.
    pub const APPROVED: u16 = 1;
    /// Flag: a packet that matches no flow and can't open one is dropped, not rejected.
    pub const DROP_UNMATCHED: u16 = 2;

    /// Returns true if the endpoint's connection is approved.
    #[inline(always)]
    #[must_use]
    pub const fn is_approved(&self) -> bool {
        self.flags & Self::APPROVED != 0
    }
}

/// Identifies a port that a resource offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct PortKey {
    /// Resource number.
    pub resource: u32,
    /// Port that clients connect to. 0 matches every port that has no entry of its own.
    pub port: Be16,
    /// IP protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u16,
}

/// The destination of flows to a port. It is replaced whole, so a new flow sees one configuration or the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// Start of the resource's table in `MAGLEV`.
    pub maglev_offset: u32,
    /// Length of that table, a prime. 0 if no backend can take a flow.
    pub maglev_size: u32,
    /// Start of the service's addresses in `NAT_ADDRESSES`: the IPv4 addresses, followed by the IPv6 addresses.
    pub nat_offset: u32,
    /// Number of the service's IPv4 addresses.
    pub nat_size_v4: u32,
    /// Number of the service's IPv6 addresses.
    pub nat_size_v6: u32,
    /// Network of the provider.
    pub network: u32,
    /// Service number, which also owns the SNAT addresses.
    pub service: u32,
    /// Port of the backends. 0 keeps the client's destination port.
    pub backend_port: Be16,
    /// A combination of [`Port::DROP_IF_NO_BACKEND`], [`Port::CLIENT_AFFINITY`], [`Port::SHARED_SNAT_POOL`] and
    /// [`Port::PRIVILEGED_PORTS`].
    pub flags: u16,
}

impl Port {
    /// Flag: while no backend can take a flow, packets are dropped, not rejected.
    pub const DROP_IF_NO_BACKEND: u16 = 1;
    /// Flag: the backend is selected by the client's address alone (session affinity).
    pub const CLIENT_AFFINITY: u16 = 2;
    /// Flag: the IPv4 SNAT addresses are used by IPv4 flows and by NAT46 flows, which lie in different tables. A port
    /// allocation looks into both.
    pub const SHARED_SNAT_POOL: u16 = 4;
    /// Flag: a client's source port below 1,024 gets a source port from 512 to 1,023.
    pub const PRIVILEGED_PORTS: u16 = 8;
}

/// One backend of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Backend {
    /// Resource that the backend belongs to. 0 while the slot is free.
    pub resource: u32,
    /// Generation of the slot. It is increased when the backend leaves the slot, which ends the flows to it.
    pub generation: u32,
    /// Address in the provider's network.
    pub address: IpAddress,
    /// Egress slot of the interface that leads to the backend.
    pub egress_slot: u32,
    /// 1 while `egress_slot` and `mac` are known.
    pub reachable: u32,
    /// Network that the backend belongs to.
    pub network: u32,
    /// A combination of [`Backend::TAKES_NO_FLOWS`] and [`Backend::RELEASES_UDP`].
    pub flags: u32,
    /// MAC address of the next hop.
    pub mac: PackedMac,
}

impl Backend {
    /// Flag: the backend takes no new flows, since it is unhealthy, draining or unreachable. A SYN that is sent again
    /// before the backend has answered selects a backend again.
    pub const TAKES_NO_FLOWS: u32 = 1;
    /// Flag: the next datagram of a UDP flow selects a backend again. It is set only while another backend of the
    /// resource takes flows.
    pub const RELEASES_UDP: u32 = 2;
}

/// An SNAT address and the service that it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NatAddress {
    /// Address in the provider's network.
    pub address: IpAddress,
    /// Service number. 0 while the entry is free.
    pub service: u32,
}

/// A connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Connection {
    /// Link id of the connection. 0 while the slot is free.
    pub id: u32,
    /// Generation of the connection. Flows of any other generation are revoked. Every revocation increases it, and it
    /// never decreases.
    pub generation: u32,
    /// Network of the endpoint.
    pub network: u32,
    /// 1 if the connection's entry in `LIMITS` is not all zeros.
    pub has_limits: u32,
    /// Timeouts of the connection's flows.
    pub timeouts: FlowTimeouts,
    /// Padding to half a cache line.
    pub reserved: u32,
}

/// Another host that claims a local address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AddressConflict {
    /// MAC address of the host.
    pub mac: Mac,
    /// 1 if the host only probed for the address, 0 if it used the address.
    pub is_probe: u16,
    /// Coarse time of the last claim.
    pub last_seen: u32,
}
