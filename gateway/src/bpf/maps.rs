//! The maps themselves: reading what they hold, writing what a plan says.

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

/// A map's key or value, as aya wants it marked.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodWrapper<T>(T);

// SAFETY: the same bytes as `T`, which bytemuck knows to be plain old data.
unsafe impl<T: Pod> aya::Pod for PodWrapper<T> {}

/// For more connections than this it is looked first which have drops counted.
const MAX_UNFILTERED_RESETS: usize = 16;

type ArrayOf<T> = Array<MapData, PodWrapper<T>>;
type HashOf<K, V> = BpfHashMap<MapData, PodWrapper<K>, PodWrapper<V>>;

/// The flow tables of a family.
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

/// A family whose flow tables are among the maps.
pub trait HasFlowMaps: Family {
    /// Its tables.
    fn flow_maps(maps: &Maps) -> &FlowMaps<Self>;
    /// Its tables, to be changed.
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
    /// Another handle of the same: aya gives none out.
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
        .with_context(|| format!("the program has no map {name}"))?;
    T::try_from(map).with_context(|| format!("map {name} is not what it should be"))
}

/// Deleting what is not there is no failure.
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
    /// Takes the maps of a loaded program.
    ///
    /// # Errors
    /// When one is missing or of another kind: the object file is not the one this was built for.
    pub fn from_ebpf(ebpf: &mut Ebpf) -> Result<Self> {
        let devices_fd = match ebpf.map(name::TX_PORTS) {
            Some(Map::DevMap(map)) => map.fd().as_fd().try_clone_to_owned()?,
            _ => bail!("the program has no device map {}", name::TX_PORTS),
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

    /// What the maps hold.
    ///
    /// # Errors
    /// When the kernel refuses.
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
        // Of the regions only those that are in use say anything.
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

    /// Carries out a plan and keeps account of it in `current`. What was written before a failure
    /// is in there too.
    ///
    /// # Errors
    /// When the kernel refuses a write.
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
        // To ask for each reason of each connection is much the longest part of a start.
        let with_drops = (resets.count() > MAX_UNFILTERED_RESETS)
            .then(|| self.connections_with_drops())
            .transpose()
            .context("could not read map CONN_DROPS")?;
        let with_drops = with_drops.as_ref();
        for write in plan.grant.iter().chain(&plan.release) {
            self.apply_write(*write, with_drops, current)?;
        }
        // A backend leaves its slot when no table names it any more, so this comes last.
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
                        // Only programs chained to a device are unsupported, and there is none.
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

    /// The connections of which a drop was counted.
    fn connections_with_drops(&self) -> Result<HashSet<u32>, MapError> {
        self.connection_drops
            .keys()
            .map(|key| key.map(|PodWrapper(key)| key.connection_slot))
            .collect()
    }

    /// Puts a connection's counters to zero. `dropping`: those that have drops counted, if known.
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

    /// The descriptor of a flow table.
    #[must_use]
    pub fn flow_table_fd<F: HasFlowMaps>(&self, table: Table) -> BorrowedFd<'_> {
        F::flow_maps(self).table(table).map().fd().as_fd()
    }

    /// Calls `visit` for every entry of a flow table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn for_each_flow<F: HasFlowMaps>(
        &self,
        table: Table,
        visit: impl FnMut(&FlowKey<F>, &Flow<F>),
    ) -> io::Result<()> {
        syscalls::for_each(self.flow_table_fd::<F>(table), visit)
    }

    /// An entry of a flow table.
    ///
    /// # Errors
    /// When the kernel refuses.
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

    /// Removes an entry of a flow table, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
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

    /// What a connection uses of what it may, by link slot.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn usage(&self, slot: u32) -> Result<ConnectionUsage, MapError> {
        Ok(self.usage.get(&slot, 0)?.0)
    }

    /// The descriptor of what connections use.
    #[must_use]
    pub fn usage_fd(&self) -> BorrowedFd<'_> {
        self.usage.map().fd().as_fd()
    }

    /// Sets what a connection uses. Meters that the data path moves at the same moment may lose that.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_usage(&mut self, slot: u32, usage: ConnectionUsage) -> Result<(), MapError> {
        self.usage.set(slot, PodWrapper(usage), 0)
    }

    /// Sets the allocation state of the identifications in a bucket.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_identifications(
        &mut self,
        bucket: u32,
        state: IdentificationState,
    ) -> Result<(), MapError> {
        self.identifications.set(bucket, PodWrapper(state), 0)
    }

    /// Stations that use an address of ours.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn conflicts(&self) -> io::Result<BTreeMap<AddressKey, AddressConflict>> {
        let mut conflicts = BTreeMap::new();
        let map = self.conflicts.map().fd().as_fd();
        syscalls::for_each(map, |key: &AddressKey, conflict: &AddressConflict| {
            conflicts.insert(*key, *conflict);
        })?;
        Ok(conflicts)
    }

    /// Forgets that a station used the address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_conflict(&mut self, key: &AddressKey) -> Result<(), MapError> {
        ignore_not_found(self.conflicts.remove(&PodWrapper(*key)))
    }

    /// Forgets all datagrams of which fragments are awaited.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear_fragments<F: HasFlowMaps>(&mut self) -> Result<(), MapError> {
        let fragments = &mut F::flow_maps_mut(self).fragments;
        let keys: Vec<_> = fragments.keys().collect::<Result<_, _>>()?;
        for key in keys {
            ignore_not_found(fragments.remove(&key))?;
        }
        Ok(())
    }

    /// Packets dropped, by reason; those that never happened left out.
    ///
    /// # Errors
    /// When the kernel refuses.
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

    /// Returns the packets of one connection that were dropped, by reason; those that never happened left out.
    ///
    /// `counters` are the connection's, from [`Self::link_counters`]: they count the packets of a connection
    /// that is not approved. Each other reason takes one system call.
    ///
    /// # Errors
    /// When the kernel refuses.
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

    /// What crossed for one connection.
    ///
    /// # Errors
    /// When the kernel refuses.
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

    /// What else is counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn statistics(&self) -> Result<Vec<(Statistic, u64)>, MapError> {
        let mut counts = Vec::with_capacity(Statistic::COUNT);
        for statistic in Statistic::ALL {
            let count = self.statistics.get(&(*statistic as u32), 0)?.iter().sum();
            counts.push((*statistic, count));
        }
        Ok(counts)
    }
}

/// The places of an array that are not all zeros.
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

/// Waits until every packet that is being processed is through: afterwards no packet can have seen
/// the maps as they were before.
fn grace_period() {
    // A global membarrier is an RCU grace period (kernel/sched/membarrier.c), and XDP programs run
    // within RCU read sections.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes two numbers, touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Not there on kernels with isolated CPUs: a packet takes microseconds, so this is ample.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The kernel's clock as flows keep it.
#[must_use]
pub fn now() -> CoarseTime {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the struct; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let nanoseconds = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
    CoarseTime::from_nanoseconds(nanoseconds)
}
