//! The maps. Their layouts are in `gateway_common::maps`. The sizes here are defaults, which the agent replaces when it
//! loads the program.
//!
//! The agent reads the flow tables, and what flows are judged by, in its own memory (`BPF_F_MMAPABLE`). A mappable array
//! begins at a page, so that flow entries fill whole cache lines.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use gateway_common::{
    DropReason, V4, V6,
    flow::{Bucket, DatagramKey, Flow, FlowTableUsage, FragmentRecord, hash::HASH_KEY_COUNT},
    maps::{
        ATTACHMENT_BUCKETS, AddressConflict, AddressKey, Attachment, AttachmentDropKey, Backend,
        CONNECTION_USAGE_COUNT, Connection, ConnectionCounters, ConnectionDropKey, ConnectionUsage,
        Egress, IDENTIFICATION_BUCKETS, IdentificationState, Limits, LocalAddress, MAX_ATTACHMENTS,
        MAX_BACKENDS, MAX_CONNECTIONS, MAX_MAGLEV_ENTRIES, MAX_NAT_ADDRESSES, NatAddress, Port,
        PortKey, REJECT_METER_COUNT, RejectMeters, Statistic,
    },
    platform::Scratch,
};

#[map]
pub(crate) static ATTACHMENTS: Array<Attachment> = Array::pinned(ATTACHMENT_BUCKETS, 0);
#[map]
pub(crate) static ATTACH_OVERFLOW: HashMap<u32, Attachment> =
    HashMap::pinned(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static EGRESS: Array<Egress> = Array::pinned(MAX_ATTACHMENTS, 0);
#[map]
pub(crate) static TX_PORTS: DevMap = DevMap::pinned(MAX_ATTACHMENTS, 0);
#[map]
pub(crate) static ADDRESSES: HashMap<AddressKey, LocalAddress> =
    HashMap::pinned(1 << 18, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static PORTS: HashMap<PortKey, Port> = HashMap::pinned(1 << 17, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static MAGLEV: Array<u32> = Array::pinned(MAX_MAGLEV_ENTRIES, 0);
#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::pinned(MAX_BACKENDS, BPF_F_MMAPABLE);
#[map]
pub(crate) static NAT_ADDRESSES: Array<NatAddress> = Array::pinned(MAX_NAT_ADDRESSES, 0);
#[map]
pub(crate) static CONNECTIONS: Array<Connection> = Array::pinned(MAX_CONNECTIONS, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOWS_V4: Array<Bucket<V4>> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOWS_V6: Array<Bucket<V6>> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOW_USAGE: Array<FlowTableUsage> = Array::pinned(2, BPF_F_MMAPABLE);
#[map]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(DropReason::COUNT as u32, 0);
#[map]
pub(crate) static CONN_DROPS: PerCpuHashMap<ConnectionDropKey, u64> =
    PerCpuHashMap::pinned(65_536, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static ATTACH_DROPS: PerCpuHashMap<AttachmentDropKey, u64> =
    PerCpuHashMap::pinned(65_536, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static CONN_COUNTERS: PerCpuArray<ConnectionCounters> =
    PerCpuArray::pinned(MAX_CONNECTIONS, 0);
#[map]
pub(crate) static STATISTICS: PerCpuArray<u64> = PerCpuArray::pinned(Statistic::COUNT as u32, 0);

#[map]
pub(crate) static LIMITS: Array<Limits> = Array::pinned(MAX_CONNECTIONS, 0);
#[map]
pub(crate) static CONN_USAGE: Array<ConnectionUsage> =
    Array::pinned(CONNECTION_USAGE_COUNT, BPF_F_MMAPABLE);
#[map]
pub(crate) static REJECT_METERS: Array<RejectMeters> = Array::pinned(REJECT_METER_COUNT, 0);
#[map]
pub(crate) static FRAGMENTS_V4: LruHashMap<DatagramKey<V4>, FragmentRecord> =
    LruHashMap::pinned(16_384, 0);
#[map]
pub(crate) static FRAGMENTS_V6: LruHashMap<DatagramKey<V6>, FragmentRecord> =
    LruHashMap::pinned(16_384, 0);
#[map]
pub(crate) static IDENTIFICATIONS: Array<IdentificationState> =
    Array::pinned(IDENTIFICATION_BUCKETS, 0);
#[map]
pub(crate) static CONFLICTS: LruHashMap<AddressKey, AddressConflict> = LruHashMap::pinned(1_024, 0);

/// The packet log. The agent gives it its size when the log is switched on.
#[map]
pub(crate) static PACKET_LOG: RingBuf = RingBuf::with_byte_size(4_096, 0);

/// Number of bytes that are summed up at a time: the maximum of `bpf_csum_diff` on the oldest supported kernel.
pub(crate) const CSUM_CHUNK_LEN: usize = 512;

/// Buffer that packet bytes are copied to for summing. The last four bytes may be padding.
#[map]
pub(crate) static CSUM_BUFFER: PerCpuArray<[u8; CSUM_CHUNK_LEN + 4]> =
    PerCpuArray::with_max_entries(1, 0);

/// Buffer in which flow entries are built before they are inserted, since the stack is too small for them.
#[map]
pub(crate) static FLOW_SCRATCH_V4: PerCpuArray<Flow<V4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static FLOW_SCRATCH_V6: PerCpuArray<Flow<V6>> = PerCpuArray::with_max_entries(1, 0);

/// Buffer for other values that are too large for the stack.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The coarse time, as a CPU has read it last.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Clock {
    /// Number of jiffies at that time.
    pub(crate) jiffies: u64,
    /// The time.
    pub(crate) now: u64,
}

#[map]
pub(crate) static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);

/// Seed of the hashes that select backends, SNAT ports and identifications. Set when the program is loaded.
#[unsafe(no_mangle)]
pub(crate) static HASH_SEED: Global<u64> = Global::new(0);

/// Nanoseconds that a reject costs. Set when the program is loaded.
#[unsafe(no_mangle)]
pub(crate) static REJECT_COST: Global<u64> = Global::new(0);

/// Secret numbers of the flow tables' hash. Set when the program is loaded.
#[unsafe(no_mangle)]
pub(crate) static FLOW_HASH_KEYS: Global<[u64; HASH_KEY_COUNT]> = Global::new([0; HASH_KEY_COUNT]);

/// Number of buckets of each flow table. Set when the program is loaded.
#[unsafe(no_mangle)]
pub(crate) static FLOW_BUCKETS: Global<u32> = Global::new(1);

/// Number of flows that each flow table is made for. Set when the program is loaded.
#[unsafe(no_mangle)]
pub(crate) static FLOW_TABLE_SIZE: Global<u64> = Global::new(0);

/// Established flows that a connection may have, as a multiple of those that the flow table has room for. Set when the
/// program is loaded.
#[unsafe(no_mangle)]
pub(crate) static FLOW_TABLE_SHARE: Global<u64> = Global::new(0);

/// 1 if dropped and rejected packets are logged. Set when the program is loaded; the verifier removes what follows from
/// 0.
#[unsafe(no_mangle)]
pub(crate) static LOG_PACKETS: Global<u8> = Global::new(0);

/// Offset of the index in the kernel's `struct net_device`. This and the following numbers are set when the program is
/// loaded.
#[unsafe(no_mangle)]
pub(crate) static DEVICE_IFINDEX: Global<u32> = Global::new(0);

/// Offset of the pointer to the network namespace in `struct net_device`.
#[unsafe(no_mangle)]
pub(crate) static DEVICE_NETNS: Global<u32> = Global::new(0);

/// Offset of the inode number in `struct net`, a network namespace.
#[unsafe(no_mangle)]
pub(crate) static NETNS_INODE: Global<u32> = Global::new(0);

/// Inode number of the agent's network namespace.
#[unsafe(no_mangle)]
pub(crate) static OWN_NETNS: Global<u32> = Global::new(0);
