//! Handles of the BPF maps: reads their contents, applies plans, and reads counters.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{
        Array, DevMap, HashMap as BpfHashMap, IterableMap as _, Map, MapData, MapError,
        PerCpuArray, PerCpuHashMap, PerCpuValues, xdp::XdpMapError,
    },
    sys::SyscallError,
    util::nr_cpus,
};
use bytemuck::Pod;
use gateway_common::{
    DropReason, Family, V4, V6,
    flow::{CoarseTime, DatagramKey, Flow, FlowKey, FragmentRecord, Table},
    maps::{
        ATTACHMENT_BUCKETS, AddressConflict, AddressKey, Attachment, Backend, Connection,
        ConnectionCounters, ConnectionDropKey, ConnectionUsage, Egress, IdentificationState,
        Limits, LocalAddress, MAX_ATTACHMENTS, MAX_BACKENDS, MAX_CONNECTIONS, NatAddress, Port,
        PortKey, Statistic, attachment_index, name,
    },
};

use crate::{
    bpf::syscalls,
    compile::{
        map_snapshot::MapSnapshot,
        plan::{MapWrite, Plan, apply_to_snapshot},
    },
};

/// Key or value of a map, with the marker trait that aya requires.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodWrapper<T>(T);

// SAFETY: the wrapper is transparent over `T`, and `T: bytemuck::Pod` is plain old data.
unsafe impl<T: Pod> aya::Pod for PodWrapper<T> {}

/// Number of counter resets above which the keys of the drop counters are listed first.
const MAX_UNFILTERED_RESETS: usize = 16;

type ArrayOf<T> = Array<MapData, PodWrapper<T>>;
type HashOf<K, V> = BpfHashMap<MapData, PodWrapper<K>, PodWrapper<V>>;

/// Flow tables of one address family.
pub struct FlowMaps<F: Family> {
    established: HashOf<FlowKey<F>, Flow<F>>,
    half_open: HashOf<FlowKey<F>, Flow<F>>,
    fragments: HashOf<DatagramKey<F>, FragmentRecord>,
}

impl<F: Family> FlowMaps<F> {
    fn from_ebpf(ebpf: &mut Ebpf, [established, half_open, fragments]: [&str; 3]) -> Result<Self> {
        Ok(Self {
            established: take_map(ebpf, established)?,
            half_open: take_map(ebpf, half_open)?,
            fragments: take_map(ebpf, fragments)?,
        })
    }

    const fn table(&self, table: Table) -> &HashOf<FlowKey<F>, Flow<F>> {
        match table {
            Table::Established => &self.established,
            Table::HalfOpen => &self.half_open,
        }
    }

    const fn table_mut(&mut self, table: Table) -> &mut HashOf<FlowKey<F>, Flow<F>> {
        match table {
            Table::Established => &mut self.established,
            Table::HalfOpen => &mut self.half_open,
        }
    }
}

/// An address family whose flow tables are in [`Maps`].
pub trait HasFlowMaps: Family {
    /// Returns the family's flow tables.
    fn flow_maps(maps: &Maps) -> &FlowMaps<Self>;
    /// Returns the family's flow tables, mutably.
    fn flow_maps_mut(maps: &mut Maps) -> &mut FlowMaps<Self>;
}

impl HasFlowMaps for V4 {
    fn flow_maps(maps: &Maps) -> &FlowMaps<Self> {
        &maps.flows_v4
    }

    fn flow_maps_mut(maps: &mut Maps) -> &mut FlowMaps<Self> {
        &mut maps.flows_v4
    }
}

impl HasFlowMaps for V6 {
    fn flow_maps(maps: &Maps) -> &FlowMaps<Self> {
        &maps.flows_v6
    }

    fn flow_maps_mut(maps: &mut Maps) -> &mut FlowMaps<Self> {
        &mut maps.flows_v6
    }
}

/// Handles of all maps.
pub struct Maps {
    attachments: ArrayOf<Attachment>,
    attachment_overflow: HashOf<u32, Attachment>,
    egress: ArrayOf<Egress>,
    tx_ports: DevMap<MapData>,
    /// Second descriptor of `tx_ports`, because aya does not expose the one in [`DevMap`].
    tx_ports_fd: OwnedFd,
    addresses: HashOf<AddressKey, LocalAddress>,
    ports: HashOf<PortKey, Port>,
    maglev: ArrayOf<u32>,
    backends: ArrayOf<Backend>,
    nat_addresses: ArrayOf<NatAddress>,
    connections: ArrayOf<Connection>,
    limits: ArrayOf<Limits>,
    usage: ArrayOf<ConnectionUsage>,
    identifications: ArrayOf<IdentificationState>,
    conflicts: HashOf<AddressKey, AddressConflict>,
    flows_v4: FlowMaps<V4>,
    flows_v6: FlowMaps<V6>,
    drops: PerCpuArray<MapData, u64>,
    connection_drops: PerCpuHashMap<MapData, PodWrapper<ConnectionDropKey>, u64>,
    connection_counters: PerCpuArray<MapData, PodWrapper<ConnectionCounters>>,
    statistics: PerCpuArray<MapData, u64>,
    cpus: usize,
}

fn take_map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T> {
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the XDP program has no map {name}: rebuild the agent"))?;
    T::try_from(map)
        .with_context(|| format!("map {name} has an unexpected type: rebuild the agent"))
}

/// Treats the deletion of an absent entry as success.
fn ignore_not_found(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

fn syscall_error(call: &'static str, io_error: io::Error) -> MapError {
    MapError::SyscallError(SyscallError { call, io_error })
}

impl Maps {
    /// Takes the maps out of a loaded program.
    ///
    /// # Errors
    /// Fails if a map is missing or has another type: the object file then belongs to another build of the agent.
    pub fn from_ebpf(ebpf: &mut Ebpf) -> Result<Self> {
        let devices_fd = match ebpf.map(name::TX_PORTS) {
            Some(Map::DevMap(map)) => map.fd().as_fd().try_clone_to_owned()?,
            _ => bail!(
                "the XDP program has no device map {}: rebuild the agent",
                name::TX_PORTS
            ),
        };
        Ok(Self {
            tx_ports_fd: devices_fd,
            attachments: take_map(ebpf, name::ATTACHMENTS)?,
            attachment_overflow: take_map(ebpf, name::ATTACH_OVERFLOW)?,
            egress: take_map(ebpf, name::EGRESS)?,
            tx_ports: take_map(ebpf, name::TX_PORTS)?,
            addresses: take_map(ebpf, name::ADDRESSES)?,
            ports: take_map(ebpf, name::PORTS)?,
            maglev: take_map(ebpf, name::MAGLEV)?,
            backends: take_map(ebpf, name::BACKENDS)?,
            nat_addresses: take_map(ebpf, name::NAT_ADDRESSES)?,
            connections: take_map(ebpf, name::CONNECTIONS)?,
            limits: take_map(ebpf, name::LIMITS)?,
            usage: take_map(ebpf, name::CONN_USAGE)?,
            identifications: take_map(ebpf, name::IDENTIFICATIONS)?,
            conflicts: take_map(ebpf, name::CONFLICTS)?,
            flows_v4: FlowMaps::from_ebpf(
                ebpf,
                [name::FLOWS_V4, name::HALF_OPEN_V4, name::FRAGMENTS_V4],
            )?,
            flows_v6: FlowMaps::from_ebpf(
                ebpf,
                [name::FLOWS_V6, name::HALF_OPEN_V6, name::FRAGMENTS_V6],
            )?,
            drops: take_map(ebpf, name::DROPS)?,
            connection_drops: take_map(ebpf, name::CONN_DROPS)?,
            connection_counters: take_map(ebpf, name::CONN_COUNTERS)?,
            statistics: take_map(ebpf, name::STATISTICS)?,
            cpus: nr_cpus().map_err(|(file, error)| {
                anyhow::Error::from(error).context(format!("could not read {file}"))
            })?,
        })
    }

    /// Reads the configuration that the maps hold.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read a map.
    pub fn read_snapshot(&self) -> Result<MapSnapshot> {
        let overflow = self.attachment_overflow.iter();
        let overflow = overflow.map(|entry| entry.map(|(_, value)| value.0));
        let overflow = overflow.collect::<Result<Vec<_>, _>>()?;
        let mut snapshot = MapSnapshot {
            attachments: read_array(&self.attachments, ATTACHMENT_BUCKETS)?
                .into_values()
                .chain(overflow)
                .map(|attachment| (attachment.ifindex, attachment))
                .collect(),
            egress: read_array(&self.egress, MAX_ATTACHMENTS)?,
            backends: read_array(&self.backends, MAX_BACKENDS)?,
            connections: read_array(&self.connections, MAX_CONNECTIONS)?,
            limits: read_array(&self.limits, MAX_CONNECTIONS)?,
            ..MapSnapshot::default()
        };
        for slot in 0..MAX_ATTACHMENTS {
            match self.tx_ports.get(slot, 0) {
                Ok(device) => {
                    snapshot.tx_ports.insert(slot, device.if_index);
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).context("could not read map TX_PORTS"),
            }
        }
        syscalls::for_each(
            self.addresses.map().fd().as_fd(),
            |key: &AddressKey, value: &LocalAddress| {
                snapshot.addresses.insert(*key, *value);
            },
        )
        .context("could not read map ADDRESSES")?;
        syscalls::for_each(
            self.ports.map().fd().as_fd(),
            |key: &PortKey, value: &Port| {
                snapshot.ports.insert(*key, *value);
            },
        )
        .context("could not read map PORTS")?;
        // Only the ranges that a port names are in use.
        let ports: Vec<Port> = snapshot.ports.values().copied().collect();
        for port in ports {
            let end = port.maglev_offset.saturating_add(port.maglev_size);
            for index in port.maglev_offset..end {
                if let Entry::Vacant(entry) = snapshot.maglev.entry(index) {
                    entry.insert(self.maglev.get(&index, 0)?.0);
                }
            }
            let end = port
                .nat_offset
                .saturating_add(port.nat_size_v4 + port.nat_size_v6);
            for index in port.nat_offset..end {
                if let Entry::Vacant(entry) = snapshot.nat_addresses.entry(index) {
                    entry.insert(self.nat_addresses.get(&index, 0)?.0);
                }
            }
        }
        Ok(snapshot)
    }

    /// Applies a plan to the maps, and each of its writes to `current`.
    ///
    /// After a failure `current` contains the writes that succeeded before it.
    ///
    /// # Errors
    /// Fails if a write fails.
    pub fn apply_plan(&mut self, plan: &Plan, current: &mut MapSnapshot) -> Result<()> {
        let ends_flows = plan.removes_backends(current);
        for write in &plan.revoke {
            self.apply_write(*write, None, current)?;
        }
        if !plan.revoke.is_empty() {
            grace_period();
        }
        let rest = plan.grant.iter().chain(&plan.release);
        let resets = rest.filter(|write| matches!(write, MapWrite::ResetCounters(_)));
        // Deleting the key of every drop reason of every connection would dominate the time of a start.
        let with_drops = (resets.count() > MAX_UNFILTERED_RESETS)
            .then(|| self.connections_with_drops())
            .transpose()
            .context("could not read map CONN_DROPS")?;
        let with_drops = with_drops.as_ref();
        for write in plan.grant.iter().chain(&plan.release) {
            self.apply_write(*write, with_drops, current)?;
        }
        // A backend's slot is freed after the Maglev tables that name it have changed, so this wait comes last.
        if ends_flows {
            grace_period();
        }
        Ok(())
    }

    fn apply_write(
        &mut self,
        write: MapWrite,
        with_drops: Option<&HashSet<u32>>,
        current: &mut MapSnapshot,
    ) -> Result<()> {
        let result = match write {
            MapWrite::ResetCounters(slot) => self.reset_counters(slot, with_drops),
            write => self.write_entry(write),
        };
        result.with_context(|| format!("could not write {write:?}"))?;
        apply_to_snapshot(current, write);
        Ok(())
    }

    fn write_entry(&mut self, write: MapWrite) -> Result<(), MapError> {
        match write {
            MapWrite::Attachment(ifindex, value) => self.write_attachment(ifindex, value),
            MapWrite::Egress(slot, value) => self.egress.set(slot, PodWrapper(value), 0),
            MapWrite::TxPort(slot, Some(ifindex)) => {
                self.tx_ports
                    .set(slot, ifindex, None, 0)
                    .map_err(|error| match error {
                        XdpMapError::MapError(error) => error,
                        // The error concerns only programs chained to a device, and none is chained here.
                        XdpMapError::ChainedProgramNotSupported => MapError::KeyNotFound,
                    })
            }
            MapWrite::TxPort(slot, None) => ignore_not_found(self.remove_tx_port(slot)),
            MapWrite::Address(key, Some(value)) => {
                self.addresses.insert(PodWrapper(key), PodWrapper(value), 0)
            }
            MapWrite::Address(key, None) => {
                ignore_not_found(self.addresses.remove(&PodWrapper(key)))
            }
            MapWrite::Port(key, Some(value)) => {
                self.ports.insert(PodWrapper(key), PodWrapper(value), 0)
            }
            MapWrite::Port(key, None) => ignore_not_found(self.ports.remove(&PodWrapper(key))),
            MapWrite::Maglev(index, slot) => self.maglev.set(index, PodWrapper(slot), 0),
            MapWrite::Backend(slot, value) => self.backends.set(slot, PodWrapper(value), 0),
            MapWrite::NatAddress(index, value) => {
                self.nat_addresses.set(index, PodWrapper(value), 0)
            }
            MapWrite::Connection(slot, value) => self.connections.set(slot, PodWrapper(value), 0),
            MapWrite::Limits(slot, value) => self.limits.set(slot, PodWrapper(value), 0),
            MapWrite::ResetCounters(slot) => self.reset_counters(slot, None),
        }
    }

    fn write_attachment(
        &mut self,
        ifindex: u32,
        value: Option<Attachment>,
    ) -> Result<(), MapError> {
        let index = attachment_index(ifindex);
        let current = self.attachments.get(&index, 0)?.0;
        match value {
            Some(value) if current.ifindex == ifindex || current.ifindex == 0 => {
                self.attachments.set(index, PodWrapper(value), 0)
            }
            Some(value) => {
                self.attachment_overflow
                    .insert(PodWrapper(ifindex), PodWrapper(value), 0)
            }
            None if current.ifindex == ifindex => {
                self.attachments
                    .set(index, PodWrapper(Attachment::default()), 0)
            }
            None => ignore_not_found(self.attachment_overflow.remove(&PodWrapper(ifindex))),
        }
    }

    fn remove_tx_port(&self, slot: u32) -> Result<(), MapError> {
        syscalls::delete(self.tx_ports_fd.as_fd(), &slot)
            .map_err(|io_error| syscall_error("bpf_map_delete_elem", io_error))
    }

    /// Returns the slots of the connections that have drops counted.
    fn connections_with_drops(&self) -> Result<HashSet<u32>, MapError> {
        self.connection_drops
            .keys()
            .map(|key| key.map(|PodWrapper(key)| key.connection_slot))
            .collect()
    }

    /// Sets a connection's counters to zero. `with_drops` has the connections with drops counted, if known.
    fn reset_counters(
        &mut self,
        slot: u32,
        with_drops: Option<&HashSet<u32>>,
    ) -> Result<(), MapError> {
        let zeros = vec![PodWrapper(ConnectionCounters::default()); self.cpus];
        let zeros = PerCpuValues::try_from(zeros)
            .map_err(|io_error| syscall_error("per-CPU values", io_error))?;
        self.connection_counters.set(slot, zeros, 0)?;
        self.usage
            .set(slot, PodWrapper(ConnectionUsage::default()), 0)?;
        if with_drops.is_some_and(|with_drops| !with_drops.contains(&slot)) {
            return Ok(());
        }
        for reason in DropReason::ALL {
            let key = ConnectionDropKey {
                connection_slot: slot,
                reason: *reason as u32,
            };
            ignore_not_found(self.connection_drops.remove(&PodWrapper(key)))?;
        }
        Ok(())
    }

    /// Returns the descriptor of a flow table.
    #[must_use]
    pub fn flow_table_fd<F: HasFlowMaps>(&self, table: Table) -> BorrowedFd<'_> {
        F::flow_maps(self).table(table).map().fd().as_fd()
    }

    /// Calls `visit` for every entry of a flow table.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the table.
    pub fn for_each_flow<F: HasFlowMaps>(
        &self,
        table: Table,
        visit: impl FnMut(&FlowKey<F>, &Flow<F>),
    ) -> io::Result<()> {
        syscalls::for_each(self.flow_table_fd::<F>(table), visit)
    }

    /// Returns an entry of a flow table.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the table.
    pub fn flow<F: HasFlowMaps>(
        &self,
        table: Table,
        key: &FlowKey<F>,
    ) -> Result<Option<Flow<F>>, MapError> {
        match F::flow_maps(self).table(table).get(&PodWrapper(*key), 0) {
            Ok(flow) => Ok(Some(flow.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an entry of a flow table, if it exists.
    ///
    /// # Errors
    /// Fails if the kernel refuses the deletion.
    pub fn remove_flow<F: HasFlowMaps>(
        &mut self,
        table: Table,
        key: &FlowKey<F>,
    ) -> Result<(), MapError> {
        ignore_not_found(
            F::flow_maps_mut(self)
                .table_mut(table)
                .remove(&PodWrapper(*key)),
        )
    }

    /// Returns a connection's rate meters and number of flows.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn usage(&self, slot: u32) -> Result<ConnectionUsage, MapError> {
        Ok(self.usage.get(&slot, 0)?.0)
    }

    /// Returns the descriptor of the map of [`ConnectionUsage`].
    #[must_use]
    pub fn usage_fd(&self) -> BorrowedFd<'_> {
        self.usage.map().fd().as_fd()
    }

    /// Sets a connection's rate meters and number of flows.
    ///
    /// A change that the data path makes to the meters at the same time may be lost.
    ///
    /// # Errors
    /// Fails if the kernel refuses the write.
    pub fn set_usage(&mut self, slot: u32, usage: ConnectionUsage) -> Result<(), MapError> {
        self.usage.set(slot, PodWrapper(usage), 0)
    }

    /// Sets the allocation state of the identifications in a bucket.
    ///
    /// # Errors
    /// Fails if the kernel refuses the write.
    pub fn set_identifications(
        &mut self,
        bucket: u32,
        state: IdentificationState,
    ) -> Result<(), MapError> {
        self.identifications.set(bucket, PodWrapper(state), 0)
    }

    /// Returns the address conflicts that the data path recorded: other hosts that use a local address.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn conflicts(&self) -> io::Result<BTreeMap<AddressKey, AddressConflict>> {
        let mut conflicts = BTreeMap::new();
        let map = self.conflicts.map().fd().as_fd();
        syscalls::for_each(map, |key: &AddressKey, conflict: &AddressConflict| {
            conflicts.insert(*key, *conflict);
        })?;
        Ok(conflicts)
    }

    /// Deletes the recorded conflict about an address.
    ///
    /// # Errors
    /// Fails if the kernel refuses the deletion.
    pub fn delete_conflict(&mut self, key: &AddressKey) -> Result<(), MapError> {
        ignore_not_found(self.conflicts.remove(&PodWrapper(*key)))
    }

    /// Deletes the records of all fragmented datagrams, so that later fragments match none.
    ///
    /// # Errors
    /// Fails if the kernel refuses a deletion.
    pub fn clear_fragments<F: HasFlowMaps>(&mut self) -> Result<(), MapError> {
        let fragments = &mut F::flow_maps_mut(self).fragments;
        let keys: Vec<_> = fragments.keys().collect::<Result<_, _>>()?;
        for key in keys {
            ignore_not_found(fragments.remove(&key))?;
        }
        Ok(())
    }

    /// Returns the numbers of dropped packets by reason, without reasons that were never counted.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn drops(&self) -> Result<BTreeMap<DropReason, u64>, MapError> {
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            let count: u64 = self.drops.get(&(*reason as u32), 0)?.iter().sum();
            if count > 0 {
                drops.insert(*reason, count);
            }
        }
        Ok(drops)
    }

    /// Returns the numbers of one connection's dropped packets by reason, without reasons that were never counted.
    ///
    /// `counters` are the connection's, from [`Self::connection_counters`]: they hold the number of packets that were
    /// dropped because the connection is not approved. Each other reason takes one system call.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn connection_drops(
        &self,
        slot: u32,
        counters: &ConnectionCounters,
    ) -> Result<BTreeMap<DropReason, u64>, MapError> {
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            let key = ConnectionDropKey {
                connection_slot: slot,
                reason: *reason as u32,
            };
            match self.connection_drops.get(&PodWrapper(key), 0) {
                Ok(counts) => {
                    drops.insert(*reason, counts.iter().sum());
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if counters.not_approved > 0 {
            drops.insert(DropReason::ConnectionNotApproved, counters.not_approved);
        }
        Ok(drops)
    }

    /// Returns the traffic counters of one connection, summed over all CPUs.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn connection_counters(&self, slot: u32) -> Result<ConnectionCounters, MapError> {
        let mut total = ConnectionCounters::default();
        for PodWrapper(one) in self.connection_counters.get(&slot, 0)?.iter() {
            total.packets_to_service += one.packets_to_service;
            total.bytes_to_service += one.bytes_to_service;
            total.packets_to_consumer += one.packets_to_consumer;
            total.bytes_to_consumer += one.bytes_to_consumer;
            total.flows_opened += one.flows_opened;
            total.not_approved += one.not_approved;
        }
        Ok(total)
    }

    /// Returns the values of all [`Statistic`]s, summed over all CPUs.
    ///
    /// # Errors
    /// Fails if the kernel refuses to read the map.
    pub fn statistics(&self) -> Result<Vec<(Statistic, u64)>, MapError> {
        let mut counts = Vec::with_capacity(Statistic::COUNT);
        for statistic in Statistic::ALL {
            let count = self.statistics.get(&(*statistic as u32), 0)?.iter().sum();
            counts.push((*statistic, count));
        }
        Ok(counts)
    }
}

/// Returns the entries of an array that are not all zeros.
fn read_array<T: Pod + Default + PartialEq>(
    array: &ArrayOf<T>,
    len: u32,
) -> Result<BTreeMap<u32, T>, MapError> {
    let mut values = BTreeMap::new();
    for index in 0..len {
        let value = array.get(&index, 0)?.0;
        if value != T::default() {
            values.insert(index, value);
        }
    }
    Ok(values)
}

/// Waits until every packet whose processing began before the call is finished.
///
/// Afterwards no packet in progress can have read the maps as they were before the preceding writes.
fn grace_period() {
    // A global membarrier waits for an RCU grace period (kernel/sched/membarrier.c), and XDP programs run
    // within RCU read-side critical sections.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes numbers and accesses no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // The kernel refuses the command when it has nohz_full CPUs. A packet takes microseconds, so 10 ms suffice.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the present time of the clock by which flow entries are stamped.
#[must_use]
pub fn now() -> CoarseTime {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the struct, which outlives the call. CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let nanoseconds = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
    CoarseTime::from_nanoseconds(nanoseconds)
}
