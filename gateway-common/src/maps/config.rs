//! Configuration: what the agent writes and the data path reads.

use crate::{
    address::IpAddress,
    byte_order::Be16,
    flow::MAX_BACKEND_SLOTS,
    packet::{Mac, PackedMac},
};

use bytemuck::{Pod, Zeroable};

/// Places in the direct-mapped array of attachments.
pub const ATTACHMENT_BUCKETS: u32 = 16_384;

/// How many connections there can be: places in `CONNECTIONS` and `CONN_COUNTERS`.
pub const MAX_CONNECTIONS: u32 = 131_072;
/// Places in `EGRESS` and in the device map.
pub const MAX_ATTACHMENTS: u32 = 16_384;
/// Places in `MAGLEV`, over all resources.
pub const MAX_MAGLEV_ENTRIES: u32 = 1 << 22;
/// Places in `BACKENDS`.
pub const MAX_BACKENDS: u32 = 65_536;
const _: () = assert!(MAX_BACKENDS <= MAX_BACKEND_SLOTS);
/// Places in `NAT_ADDRESSES`.
pub const MAX_NAT_ADDRESSES: u32 = 65_536;

/// The link slot of packets that concern no endpoint.
pub const NO_CONNECTION: u32 = u32::MAX;

/// The place of an interface in the array of attachments.
#[inline(always)]
#[must_use]
pub const fn attachment_index(ifindex: u32) -> u32 {
    ifindex % ATTACHMENT_BUCKETS
}

/// An interface through which the gateway meets a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Attachment {
    /// The interface this is about: the array's place alone does not tell.
    pub ifindex: u32,
    /// The network met here; 0 is no network.
    pub network: u32,
    /// Its place in the device map and in `EGRESS`.
    pub slot: u32,
    /// A combination of [`Attachment::ISOLATED`], [`Attachment::PASS_ARP_ND`] and
    /// [`Attachment::NAT46`].
    pub flags: u32,
    /// The interface's own address.
    pub mac: PackedMac,
}

impl Attachment {
    /// Nothing that came in here reaches the host's own stack.
    pub const ISOLATED: u32 = 1;
    /// Answers to ARP and neighbour discovery do, all the same: the host looks for backends here.
    pub const PASS_ARP_ND: u32 = 2;
    /// IPv4 packets that came in here may belong to a flow whose other side is IPv6. Those flows
    /// are kept with IPv6's, and cost IPv4 packets a second lookup: here, and nowhere else.
    pub const NAT46: u32 = 4;

    /// Whether IPv4 packets are looked for among IPv6's flows too.
    #[inline(always)]
    #[must_use]
    pub const fn is_nat46(&self) -> bool {
        self.flags & Self::NAT46 != 0
    }

    /// Whether what is not for an endpoint is dropped rather than handed to the host.
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
    /// The network behind it; 0 while the slot is free or the interface is down.
    pub network: u32,
    /// The largest IP packet that fits, in bytes.
    pub mtu: u16,
    /// Keeps what follows aligned.
    pub reserved: u16,
    /// The source address of frames that leave here.
    pub mac: PackedMac,
}

/// An address that the gateway answers for, in one network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKey {
    /// The network's number.
    pub network: u32,
    /// The address.
    pub address: IpAddress,
}

/// What an address of ours is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LocalAddress {
    /// [`LocalAddress::ENDPOINT`], [`LocalAddress::NAT`] or [`LocalAddress::TENTATIVE`].
    pub kind: u16,
    /// A combination of [`LocalAddress::APPROVED`] and [`LocalAddress::DROP_UNMATCHED`].
    pub flags: u16,
    /// The endpoint's connection slot; [`NO_CONNECTION`] for a NAT address.
    pub connection_slot: u32,
    /// The generation that a flow opened now belongs to.
    pub generation: u32,
    /// The resource that the endpoint is bound to.
    pub resource: u32,
}

impl LocalAddress {
    /// An endpoint's private address in its consumer's network.
    pub const ENDPOINT: u16 = 1;
    /// An address in the provider's network from which consumers appear.
    pub const NAT: u16 = 2;
    /// An endpoint's address that is not in use yet: whether another station has it is being found
    /// out. Nothing sent to it is answered or carried.
    pub const TENTATIVE: u16 = 3;

    /// The endpoint's connection is approved.
    pub const APPROVED: u16 = 1;
    /// What belongs to no flow and can't open one is dropped, not answered with a refusal.
    pub const DROP_UNMATCHED: u16 = 2;

    /// Whether the endpoint's connection is approved.
    #[inline(always)]
    #[must_use]
    pub const fn is_approved(&self) -> bool {
        self.flags & Self::APPROVED != 0
    }
}

/// A port that a resource offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct PortKey {
    /// The resource.
    pub resource: u32,
    /// The port clients connect to; 0 stands for every port that has no entry of its own.
    pub port: Be16,
    /// 6 or 17, as in the IP header.
    pub protocol: u16,
}

/// Where flows to a port go. Replaced whole, so a new flow sees one configuration or the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// Where the resource's table starts in `MAGLEV`.
    pub maglev_offset: u32,
    /// Its length, a prime; 0 when no backend can take a flow.
    pub maglev_size: u32,
    /// Where the service's addresses start in `NAT_ADDRESSES`: first those of IPv4.
    pub nat_offset: u32,
    /// How many of IPv4 there are.
    pub nat_size_v4: u32,
    /// How many of IPv6 there are, behind those.
    pub nat_size_v6: u32,
    /// The provider's network.
    pub network: u32,
    /// The owner of the NAT addresses: the service's number.
    pub service: u32,
    /// The port of the backends; 0 keeps the client's.
    pub backend_port: Be16,
    /// A combination of [`Port::DROP_IF_NO_BACKEND`], [`Port::CLIENT_AFFINITY`] and
    /// [`Port::SHARED_SNAT_POOL`].
    pub flags: u16,
}

impl Port {
    /// With no backend to go to, stay silent instead of refusing.
    pub const DROP_IF_NO_BACKEND: u16 = 1;
    /// The backend is chosen by the client's address alone.
    pub const CLIENT_AFFINITY: u16 = 2;
    /// Its IPv4 sources are used by flows of IPv4 and by translated ones, which lie in different
    /// tables: who reserves a port looks into both.
    pub const SHARED_SNAT_POOL: u16 = 4;
}

/// One backend of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Backend {
    /// The resource it belongs to; 0 while the slot is free.
    pub resource: u32,
    /// Bumped when the backend leaves the slot, so that flows to it end there.
    pub generation: u32,
    /// Its address in the provider's network.
    pub address: IpAddress,
    /// The attachment slot that leads to it.
    pub egress_slot: u32,
    /// 1 while `egress` and `mac` are known.
    pub reachable: u32,
    /// The next hop's MAC address.
    pub mac: PackedMac,
}

/// A source NAT address and the service it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NatAddress {
    /// The address in the provider's network.
    pub address: IpAddress,
    /// The service's number; 0 while the place is free.
    pub service: u32,
}

/// A connection's place in the arrays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Connection {
    /// The connection's link id; 0 while the slot is free.
    pub id: u32,
    /// Flows of any other generation are dead. Bumped by every revocation, never set back.
    pub generation: u32,
    /// 1 where the connection has an entry in `LIMITS` that is not all zeros.
    pub has_limits: u32,
}

/// Another station that uses an address of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AddressConflict {
    /// The station.
    pub mac: Mac,
    /// Keeps what follows aligned.
    pub reserved: u16,
    /// When it was last seen, in ticks.
    pub last_seen: u32,
}
