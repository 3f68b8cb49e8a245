//! Layouts of the BPF maps: what the agent writes and the data path reads.
//!
//! All are plain old data, without padding bytes that could differ between equal keys. The agent is
//! the only writer of everything but the flows; a value of a hash map is replaced whole, an array's
//! is made so that a reader who sees half of a change is caught by a generation or an owner field.

use bytemuck::{Pod, Zeroable};

use crate::{
    Be16, Family, IpAddress, V4, V6,
    packet::{Mac, MacWord},
};

/// Changes whenever a layout below, or the meaning of a field, does. Maps of another version are
/// never reused.
pub const LAYOUT_VERSION: u32 = 5;

/// The names of the maps: as the object file has them and as they are pinned.
pub mod name {
    /// `Attachment` by [`attachment_index`](super::attachment_index): array.
    pub const ATTACHMENTS: &str = "ATTACHMENTS";
    /// [`Attachment`](super::Attachment) by ifindex, for those whose place in the array is taken.
    pub const ATTACHMENT_OVERFLOW: &str = "ATTACHMENT_OVER";
    /// [`Egress`](super::Egress) by attachment slot: array.
    pub const EGRESS: &str = "EGRESS";
    /// Device by attachment slot: device map.
    pub const DEVICES: &str = "DEVICES";
    /// [`Address`](super::Address) by [`AddressKey`](super::AddressKey): hash.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// [`Port`](super::Port) by [`PortKey`](super::PortKey): hash.
    pub const PORTS: &str = "PORTS";
    /// Backend slots, one region a resource: array of `u32`.
    pub const MAGLEV: &str = "MAGLEV";
    /// [`Backend`](super::Backend) by backend slot: array.
    pub const BACKENDS: &str = "BACKENDS";
    /// [`NatAddress`](super::NatAddress), one region a service: array.
    pub const NAT_ADDRESSES: &str = "NAT_ADDRESSES";
    /// [`Link`](super::Link) by link slot: array.
    pub const LINKS: &str = "LINKS";
    /// [`Flow`](crate::flow::Flow) by [`FlowKey`](crate::flow::FlowKey) of IPv4: flows both sides
    /// agreed to.
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// The same of IPv6.
    pub const FLOWS_V6: &str = "FLOWS_V6";
    /// Flows of IPv4 that are still being opened, and may be evicted.
    pub const EMBRYONIC_V4: &str = "EMBRYONIC_V4";
    /// The same of IPv6.
    pub const EMBRYONIC_V6: &str = "EMBRYONIC_V6";
    /// `u64` packets by [`DropReason`](crate::DropReason): per-CPU array.
    pub const DROPS: &str = "DROPS";
    /// `u64` packets by [`LinkDropKey`](super::LinkDropKey): per-CPU hash. Those that were dropped because
    /// the connection is not approved are in [`LinkCounters`](super::LinkCounters).
    pub const LINK_DROPS: &str = "LINK_DROPS";
    /// [`LinkCounters`](super::LinkCounters) by link slot: per-CPU array.
    pub const LINK_COUNTERS: &str = "LINK_COUNTERS";
    /// `u64` by [`Statistic`](super::Statistic): per-CPU array.
    pub const STATISTICS: &str = "STATISTICS";
    /// [`Limits`](super::Limits) by link slot: array.
    pub const LIMITS: &str = "LIMITS";
    /// [`Usage`](super::Usage) by link slot: array.
    pub const USAGE: &str = "USAGE";
    /// [`FragmentRecord`](super::FragmentRecord) by [`DatagramKey`](super::DatagramKey) of IPv4: what the later
    /// fragments of a datagram belong to.
    pub const FRAGMENTS_V4: &str = "FRAGMENTS_V4";
    /// The same of IPv6.
    pub const FRAGMENTS_V6: &str = "FRAGMENTS_V6";
    /// [`Identifications`](super::Identifications) by the hash of the addresses that datagrams leave
    /// with: array.
    pub const IDENTIFICATIONS: &str = "IDENTIFICATIONS";
    /// [`Conflict`](super::Conflict) by [`AddressKey`](super::AddressKey): who else uses an address
    /// of ours.
    pub const CONFLICTS: &str = "CONFLICTS";
}

/// Places in the direct-mapped array of attachments.
pub const ATTACHMENT_PLACES: u32 = 16_384;

/// How many connections there can be: places in `LINKS` and `LINK_COUNTERS`.
pub const MOST_LINKS: u32 = 131_072;
/// Places in `EGRESS` and in the device map.
pub const MOST_ATTACHMENTS: u32 = 16_384;
/// Places in `MAGLEV`, over all resources.
pub const MAGLEV_PLACES: u32 = 1 << 22;
/// Places in `BACKENDS`.
pub const MOST_BACKENDS: u32 = 65_536;
/// Places in `NAT_ADDRESSES`.
pub const MOST_NAT_ADDRESSES: u32 = 65_536;

/// Places in `IDENTIFICATIONS`.
pub const IDENTIFICATION_BUCKETS: u32 = 65_536;

/// The link slot of packets that concern no endpoint.
pub const NO_LINK: u32 = u32::MAX;

/// The place of an interface in the array of attachments.
#[inline(always)]
#[must_use]
pub const fn attachment_index(ifindex: u32) -> u32 {
    ifindex % ATTACHMENT_PLACES
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
    /// A combination of [`Attachment::ISOLATED`], [`Attachment::PASS_NEIGHBOURS`] and
    /// [`Attachment::TRANSLATES`].
    pub flags: u32,
    /// The interface's own address.
    pub mac: MacWord,
}

impl Attachment {
    /// Nothing that came in here reaches the host's own stack.
    pub const ISOLATED: u32 = 1;
    /// Answers to ARP and neighbour discovery do, all the same: the host looks for backends here.
    pub const PASS_NEIGHBOURS: u32 = 2;
    /// IPv4 packets that came in here may belong to a flow whose other side is IPv6. Those flows
    /// are kept with IPv6's, and cost IPv4 packets a second lookup: here, and nowhere else.
    pub const TRANSLATES: u32 = 4;

    /// Whether IPv4 packets are looked for among IPv6's flows too.
    #[inline(always)]
    #[must_use]
    pub const fn translates(&self) -> bool {
        self.flags & Self::TRANSLATES != 0
    }

    /// Whether what is not for an endpoint is dropped rather than handed to the host.
    #[inline(always)]
    #[must_use]
    pub const fn isolated(&self) -> bool {
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
    pub mac: MacWord,
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
pub struct Address {
    /// [`Address::ENDPOINT`], [`Address::NAT`] or [`Address::TENTATIVE`].
    pub kind: u16,
    /// A combination of [`Address::APPROVED`] and [`Address::SILENT`].
    pub flags: u16,
    /// The endpoint's link slot; [`NO_LINK`] for a NAT address.
    pub link: u32,
    /// The generation that a flow opened now belongs to.
    pub generation: u32,
    /// The resource that the endpoint is bound to.
    pub resource: u32,
}

impl Address {
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
    pub const SILENT: u16 = 2;

    /// Whether the endpoint's connection is approved.
    #[inline(always)]
    #[must_use]
    pub const fn approved(&self) -> bool {
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
    /// A combination of [`Port::DROP_WITHOUT_BACKEND`], [`Port::CLIENT_AFFINITY`] and
    /// [`Port::SHARES_SOURCES`].
    pub flags: u16,
}

impl Port {
    /// With no backend to go to, stay silent instead of refusing.
    pub const DROP_WITHOUT_BACKEND: u16 = 1;
    /// The backend is chosen by the client's address alone.
    pub const CLIENT_AFFINITY: u16 = 2;
    /// Its IPv4 sources are used by flows of IPv4 and by translated ones, which lie in different
    /// tables: who reserves a port looks into both.
    pub const SHARES_SOURCES: u16 = 4;
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
    pub egress: u32,
    /// 1 while `egress` and `mac` are known.
    pub reachable: u32,
    /// The next hop's MAC address.
    pub mac: MacWord,
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
pub struct Link {
    /// The connection's link id; 0 while the slot is free.
    pub id: u32,
    /// Flows of any other generation are dead. Bumped by every revocation, never set back.
    pub generation: u32,
    /// 1 where the connection has an entry in `LIMITS` that is not all zeros.
    pub limited: u32,
}

/// What one connection may use. A cost of 0 is no limit. Rates are kept as what one unit costs in
/// time, so that the data path multiplies and never divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Limits {
    /// Flows at the same time; 0 is no limit.
    pub flows: u64,
    /// Nanoseconds that a new flow costs.
    pub new_flow: u64,
    /// Nanoseconds that a packet costs, in each direction.
    pub packet: u64,
    /// Nanoseconds that a byte of an IP packet costs, in each direction, times
    /// 2^[`Limits::BYTE_SHIFT`].
    pub byte: u64,
}

impl Limits {
    /// Binary digits behind the point of `byte`.
    pub const BYTE_SHIFT: u32 = 16;
    /// How far new flows may run ahead of their rate, in nanoseconds: a second's worth at once.
    pub const FLOW_BURST: u64 = 1_000_000_000;
    /// The same for packets and bytes: a tenth of a second's worth.
    pub const PACKET_BURST: u64 = 100_000_000;
    /// The same for refusals.
    pub const REFUSAL_BURST: u64 = 1_000_000_000;
}

/// What one connection uses now: written by all CPUs, atomically. The meters hold the time, in
/// nanoseconds since the machine started, at which everything let through so far is paid for
/// (the generic cell rate algorithm of ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Usage {
    /// Flows; the agent corrects it by what it counts in the tables.
    pub flows: u64,
    /// The meter of new flows.
    pub new_flow: u64,
    /// The meters of packets, by [`Direction`](crate::flow::Direction).
    pub packets: [u64; 2],
    /// The meters of bytes.
    pub bytes: [u64; 2],
    /// The meter of refusals sent: resets and ICMP errors.
    pub refusals: u64,
    /// Fills a cache line.
    pub reserved: u64,
}

/// The place in `USAGE` of what concerns no connection.
pub const NO_LINK_USAGE: u32 = MOST_LINKS;

/// A datagram that came in fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct DatagramKey<F: Family> {
    /// The network that it came from.
    pub network: u32,
    /// Its source.
    pub source: F::Address,
    /// Its destination.
    pub destination: F::Address,
    /// Its identification, as loaded.
    pub id: u32,
    /// Its protocol.
    pub protocol: u32,
}

// SAFETY: all fields are plain old data for which all zeros is a value.
unsafe impl<F: Family> Zeroable for DatagramKey<F> {}
// SAFETY: `repr(C)`, all fields are plain old data, and the assertion shows that nothing is between.
unsafe impl<F: Family> Pod for DatagramKey<F> {}
const _: () = {
    assert!(size_of::<DatagramKey<V4>>() == 12 + 2 * 4);
    assert!(size_of::<DatagramKey<V6>>() == 12 + 2 * 16);
};

/// State of a datagram whose first fragment was forwarded or answered: later fragments carry neither
/// ports nor the identification that the first one left with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentRecord {
    /// The source port; of an echo request: 0.
    pub source: Be16,
    /// The destination port; of an echo request: 0.
    pub destination: Be16,
    /// When the first fragment came, in ticks.
    pub seen: u32,
    /// Identification that the fragments leave with, in host byte order.
    pub id: u32,
    /// Hash of the network, addresses and protocol that the fragments leave with. The identification
    /// is unique among datagrams with the same hash only.
    pub pair: u32,
}

/// Allocation state of the identifications of datagrams that leave with the same addresses and
/// protocol, or with ones that share the bucket. Written by all CPUs, by compare and exchange only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Identifications {
    /// IPv4 fragments: the next number in the lower 16 bits; above them the time up to which numbers
    /// are spent, in units of 2^21 nanoseconds.
    pub fragments_v4: u64,
    /// IPv4 packets that a router may fragment: how many numbers were allocated.
    pub whole_v4: u64,
    /// IPv6 fragments: how many numbers were allocated.
    pub fragments_v6: u64,
}

/// Another station that uses an address of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Conflict {
    /// The station.
    pub mac: Mac,
    /// Keeps what follows aligned.
    pub reserved: u16,
    /// When it was last seen, in ticks.
    pub seen: u32,
}

/// Counts what crossed for one connection. Bytes are those of the IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LinkCounters {
    /// Packets from the consumer to the service.
    pub packets_to_service: u64,
    /// Their bytes.
    pub bytes_to_service: u64,
    /// Packets from the service to the consumer.
    pub packets_to_consumer: u64,
    /// Their bytes.
    pub bytes_to_consumer: u64,
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets dropped because the connection is not approved. A flood is made of these, so they are counted
    /// where it costs least; other reasons are in `LINK_DROPS`.
    pub not_approved: u64,
}

/// Key of the drops counted for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct LinkDropKey {
    /// The link slot.
    pub link: u32,
    /// The [`DropReason`](crate::DropReason)'s number.
    pub reason: u32,
}

/// What the data path counts beside drops and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Statistic {
    /// Packets handed to the host untouched.
    Passed = 0,
    /// Packets rewritten and redirected.
    Forwarded = 1,
    /// ARP and echo answered.
    Replied = 2,
    /// TCP resets sent instead of forwarding.
    ResetsSent = 3,
    /// Offloaded checksums completed.
    ChecksumsCompleted = 4,
    /// Flows that both sides agreed to, but that found the table of established flows full. They
    /// go on, but can be evicted.
    NotEstablished = 5,
    /// ICMP errors sent instead of forwarding.
    ErrorsSent = 6,
    /// ICMP errors of others forwarded.
    ErrorsForwarded = 7,
    /// Refusals that were not sent, for being too many.
    RefusalsSuppressed = 8,
}

impl Statistic {
    /// All of them, by number.
    pub const ALL: &'static [Self] = &[
        Self::Passed,
        Self::Forwarded,
        Self::Replied,
        Self::ResetsSent,
        Self::ChecksumsCompleted,
        Self::NotEstablished,
        Self::ErrorsSent,
        Self::ErrorsForwarded,
        Self::RefusalsSuppressed,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its stable name in tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Forwarded => "forwarded",
            Self::Replied => "replied",
            Self::ResetsSent => "resets_sent",
            Self::ChecksumsCompleted => "checksums_completed",
            Self::NotEstablished => "not_established",
            Self::ErrorsSent => "errors_sent",
            Self::ErrorsForwarded => "errors_forwarded",
            Self::RefusalsSuppressed => "refusals_suppressed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Flow, FlowKey};

    /// A size that changes must change `LAYOUT_VERSION` with it.
    #[test]
    fn sizes_of_this_layout_version() {
        assert_eq!(LAYOUT_VERSION, 5);
        let sizes = [
            size_of::<Attachment>(),
            size_of::<Egress>(),
            size_of::<AddressKey>(),
            size_of::<Address>(),
            size_of::<PortKey>(),
            size_of::<Port>(),
            size_of::<Backend>(),
            size_of::<NatAddress>(),
            size_of::<Link>(),
            size_of::<LinkCounters>(),
            size_of::<LinkDropKey>(),
            size_of::<FlowKey<V4>>(),
            size_of::<Flow<V4>>(),
            size_of::<FlowKey<V6>>(),
            size_of::<Flow<V6>>(),
            size_of::<Limits>(),
            size_of::<Usage>(),
            size_of::<FragmentRecord>(),
            size_of::<Identifications>(),
        ];
        assert_eq!(
            sizes,
            [
                24, 16, 20, 16, 8, 32, 40, 20, 12, 48, 8, 16, 56, 40, 80, 32, 64, 16, 24
            ]
        );
        assert_eq!((DropReason::COUNT, Statistic::COUNT), (39, 9));
    }

    use crate::DropReason;

    #[test]
    fn statistics_are_places_in_the_list() {
        for (place, statistic) in Statistic::ALL.iter().enumerate() {
            assert_eq!(*statistic as usize, place);
        }
    }
}
