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
    flow::{Flow, FlowKey, Table, Tick},
    maps::{
        ATTACHMENT_PLACES, Address, AddressKey, Attachment, Backend, Conflict, DatagramKey, Egress,
        FragmentRecord, Identifications, Limits, Link, LinkCounters, LinkDropKey, MOST_ATTACHMENTS,
        MOST_BACKENDS, MOST_LINKS, NatAddress, Port, PortKey, Statistic, Usage, attachment_index,
        name,
    },
};

use crate::dataplane::{
    contents::Contents,
    plan::{Plan, Write, apply},
    syscalls,
};

/// A map's key or value, as aya wants it marked.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);

// SAFETY: the same bytes as `T`, which bytemuck knows to be plain old data.
unsafe impl<T: Pod> aya::Pod for Raw<T> {}

/// For more connections than this it is looked first which have drops counted.
const FEW_RESETS: usize = 16;

type ArrayOf<T> = Array<MapData, Raw<T>>;
type HashOf<K, V> = BpfHashMap<MapData, Raw<K>, Raw<V>>;

/// The flow tables of a family.
pub struct Flows<F: Family> {
    established: HashOf<FlowKey<F>, Flow<F>>,
    embryonic: HashOf<FlowKey<F>, Flow<F>>,
    fragments: HashOf<DatagramKey<F>, FragmentRecord>,
}

impl<F: Family> Flows<F> {
    fn take(ebpf: &mut Ebpf, [established, embryonic, fragments]: [&str; 3]) -> Result<Self> {
        Ok(Self {
            established: take(ebpf, established)?,
            embryonic: take(ebpf, embryonic)?,
            fragments: take(ebpf, fragments)?,
        })
    }

    const fn of(&self, table: Table) -> &HashOf<FlowKey<F>, Flow<F>> {
        match table {
            Table::Established => &self.established,
            Table::Embryonic => &self.embryonic,
        }
    }

    const fn of_mut(&mut self, table: Table) -> &mut HashOf<FlowKey<F>, Flow<F>> {
        match table {
            Table::Established => &mut self.established,
            Table::Embryonic => &mut self.embryonic,
        }
    }
}

/// A family whose flow tables are among the maps.
pub trait Tables: Family {
    /// Its tables.
    fn flows(maps: &Maps) -> &Flows<Self>;
    /// Its tables, to be changed.
    fn flows_mut(maps: &mut Maps) -> &mut Flows<Self>;
}

impl Tables for V4 {
    fn flows(maps: &Maps) -> &Flows<Self> {
        &maps.flows_v4
    }

    fn flows_mut(maps: &mut Maps) -> &mut Flows<Self> {
        &mut maps.flows_v4
    }
}

impl Tables for V6 {
    fn flows(maps: &Maps) -> &Flows<Self> {
        &maps.flows_v6
    }

    fn flows_mut(maps: &mut Maps) -> &mut Flows<Self> {
        &mut maps.flows_v6
    }
}

/// Handles of all maps.
pub struct Maps {
    attachments: ArrayOf<Attachment>,
    attachment_overflow: HashOf<u32, Attachment>,
    egress: ArrayOf<Egress>,
    devices: DevMap<MapData>,
    /// Another handle of the same: aya gives none out.
    devices_fd: OwnedFd,
    addresses: HashOf<AddressKey, Address>,
    ports: HashOf<PortKey, Port>,
    maglev: ArrayOf<u32>,
    backends: ArrayOf<Backend>,
    nat_addresses: ArrayOf<NatAddress>,
    links: ArrayOf<Link>,
    limits: ArrayOf<Limits>,
    usage: ArrayOf<Usage>,
    identifications: ArrayOf<Identifications>,
    conflicts: HashOf<AddressKey, Conflict>,
    flows_v4: Flows<V4>,
    flows_v6: Flows<V6>,
    drops: PerCpuArray<MapData, u64>,
    link_drops: PerCpuHashMap<MapData, Raw<LinkDropKey>, u64>,
    link_counters: PerCpuArray<MapData, Raw<LinkCounters>>,
    statistics: PerCpuArray<MapData, u64>,
    cpus: usize,
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T> {
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the program has no map {name}"))?;
    T::try_from(map).with_context(|| format!("map {name} is not what it should be"))
}

/// Deleting what is not there is no failure.
fn gone_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

fn failed(call: &'static str, io_error: io::Error) -> MapError {
    MapError::SyscallError(SyscallError { call, io_error })
}

impl Maps {
    /// Takes the maps of a loaded program.
    ///
    /// # Errors
    /// When one is missing or of another kind: the object file is not the one this was built for.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let devices_fd = match ebpf.map(name::DEVICES) {
            Some(Map::DevMap(map)) => map.fd().as_fd().try_clone_to_owned()?,
            _ => bail!("the program has no device map {}", name::DEVICES),
        };
        Ok(Self {
            devices_fd,
            attachments: take(ebpf, name::ATTACHMENTS)?,
            attachment_overflow: take(ebpf, name::ATTACHMENT_OVERFLOW)?,
            egress: take(ebpf, name::EGRESS)?,
            devices: take(ebpf, name::DEVICES)?,
            addresses: take(ebpf, name::ADDRESSES)?,
            ports: take(ebpf, name::PORTS)?,
            maglev: take(ebpf, name::MAGLEV)?,
            backends: take(ebpf, name::BACKENDS)?,
            nat_addresses: take(ebpf, name::NAT_ADDRESSES)?,
            links: take(ebpf, name::LINKS)?,
            limits: take(ebpf, name::LIMITS)?,
            usage: take(ebpf, name::USAGE)?,
            identifications: take(ebpf, name::IDENTIFICATIONS)?,
            conflicts: take(ebpf, name::CONFLICTS)?,
            flows_v4: Flows::take(
                ebpf,
                [name::FLOWS_V4, name::EMBRYONIC_V4, name::FRAGMENTS_V4],
            )?,
            flows_v6: Flows::take(
                ebpf,
                [name::FLOWS_V6, name::EMBRYONIC_V6, name::FRAGMENTS_V6],
            )?,
            drops: take(ebpf, name::DROPS)?,
            link_drops: take(ebpf, name::LINK_DROPS)?,
            link_counters: take(ebpf, name::LINK_COUNTERS)?,
            statistics: take(ebpf, name::STATISTICS)?,
            cpus: nr_cpus().map_err(|(file, error)| {
                anyhow::Error::from(error).context(format!("could not read {file}"))
            })?,
        })
    }

    /// What the maps hold.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(&self) -> Result<Contents> {
        let overflow = self.attachment_overflow.iter();
        let overflow = overflow.map(|entry| entry.map(|(_, value)| value.0));
        let overflow = overflow.collect::<Result<Vec<_>, _>>()?;
        let mut contents = Contents {
            attachments: read_array(&self.attachments, ATTACHMENT_PLACES)?
                .into_values()
                .chain(overflow)
                .map(|attachment| (attachment.ifindex, attachment))
                .collect(),
            egress: read_array(&self.egress, MOST_ATTACHMENTS)?,
            backends: read_array(&self.backends, MOST_BACKENDS)?,
            links: read_array(&self.links, MOST_LINKS)?,
            limits: read_array(&self.limits, MOST_LINKS)?,
            ..Contents::default()
        };
        for slot in 0..MOST_ATTACHMENTS {
            match self.devices.get(slot, 0) {
                Ok(device) => {
                    contents.devices.insert(slot, device.if_index);
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).context("could not read map DEVICES"),
            }
        }
        syscalls::for_each(
            self.addresses.map().fd().as_fd(),
            |key: &AddressKey, value: &Address| {
                contents.addresses.insert(*key, *value);
            },
        )
        .context("could not read map ADDRESSES")?;
        syscalls::for_each(
            self.ports.map().fd().as_fd(),
            |key: &PortKey, value: &Port| {
                contents.ports.insert(*key, *value);
            },
        )
        .context("could not read map PORTS")?;
        // Of the regions only those that are in use say anything.
        let ports: Vec<Port> = contents.ports.values().copied().collect();
        for port in ports {
            let end = port.maglev_offset.saturating_add(port.maglev_size);
            for place in port.maglev_offset..end {
                if let Entry::Vacant(entry) = contents.maglev.entry(place) {
                    entry.insert(self.maglev.get(&place, 0)?.0);
                }
            }
            let end = port
                .nat_offset
                .saturating_add(port.nat_size_v4 + port.nat_size_v6);
            for place in port.nat_offset..end {
                if let Entry::Vacant(entry) = contents.nat_addresses.entry(place) {
                    entry.insert(self.nat_addresses.get(&place, 0)?.0);
                }
            }
        }
        Ok(contents)
    }

    /// Carries out a plan and keeps account of it in `current`. What was written before a failure
    /// is in there too.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn write(&mut self, plan: &Plan, current: &mut Contents) -> Result<()> {
        let ends_flows = plan.ends_backends(current);
        for write in &plan.revoke {
            self.write_one(*write, None, current)?;
        }
        if !plan.revoke.is_empty() {
            grace_period();
        }
        let rest = plan.grant.iter().chain(&plan.release);
        let resets = rest.filter(|write| matches!(write, Write::ResetCounters(_)));
        // To ask for each reason of each connection is much the longest part of a start.
        let dropping = (resets.count() > FEW_RESETS)
            .then(|| self.links_with_drops())
            .transpose()
            .context("could not read map LINK_DROPS")?;
        let dropping = dropping.as_ref();
        for write in plan.grant.iter().chain(&plan.release) {
            self.write_one(*write, dropping, current)?;
        }
        // A backend leaves its slot when no table names it any more, so this comes last.
        if ends_flows {
            grace_period();
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        write: Write,
        dropping: Option<&HashSet<u32>>,
        current: &mut Contents,
    ) -> Result<()> {
        let written = match write {
            Write::ResetCounters(slot) => self.reset_counters(slot, dropping),
            write => self.put(write),
        };
        written.with_context(|| format!("could not write {write:?}"))?;
        apply(current, write);
        Ok(())
    }

    fn put(&mut self, write: Write) -> Result<(), MapError> {
        match write {
            Write::Attachment(ifindex, value) => self.put_attachment(ifindex, value),
            Write::Egress(slot, value) => self.egress.set(slot, Raw(value), 0),
            Write::Device(slot, Some(ifindex)) => {
                self.devices
                    .set(slot, ifindex, None, 0)
                    .map_err(|error| match error {
                        XdpMapError::MapError(error) => error,
                        // Only programs chained to a device are unsupported, and there is none.
                        XdpMapError::ChainedProgramNotSupported => MapError::KeyNotFound,
                    })
            }
            Write::Device(slot, None) => gone_is_fine(self.remove_device(slot)),
            Write::Address(key, Some(value)) => self.addresses.insert(Raw(key), Raw(value), 0),
            Write::Address(key, None) => gone_is_fine(self.addresses.remove(&Raw(key))),
            Write::Port(key, Some(value)) => self.ports.insert(Raw(key), Raw(value), 0),
            Write::Port(key, None) => gone_is_fine(self.ports.remove(&Raw(key))),
            Write::Maglev(place, slot) => self.maglev.set(place, Raw(slot), 0),
            Write::Backend(slot, value) => self.backends.set(slot, Raw(value), 0),
            Write::NatAddress(place, value) => self.nat_addresses.set(place, Raw(value), 0),
            Write::Link(slot, value) => self.links.set(slot, Raw(value), 0),
            Write::Limits(slot, value) => self.limits.set(slot, Raw(value), 0),
            Write::ResetCounters(slot) => self.reset_counters(slot, None),
        }
    }

    fn put_attachment(&mut self, ifindex: u32, value: Option<Attachment>) -> Result<(), MapError> {
        let place = attachment_index(ifindex);
        let there = self.attachments.get(&place, 0)?.0;
        match value {
            Some(value) if there.ifindex == ifindex || there.ifindex == 0 => {
                self.attachments.set(place, Raw(value), 0)
            }
            Some(value) => self.attachment_overflow.insert(Raw(ifindex), Raw(value), 0),
            None if there.ifindex == ifindex => {
                self.attachments.set(place, Raw(Attachment::default()), 0)
            }
            None => gone_is_fine(self.attachment_overflow.remove(&Raw(ifindex))),
        }
    }

    fn remove_device(&self, slot: u32) -> Result<(), MapError> {
        syscalls::delete(self.devices_fd.as_fd(), &slot)
            .map_err(|io_error| failed("bpf_map_delete_elem", io_error))
    }

    /// The connections of which a drop was counted.
    fn links_with_drops(&self) -> Result<HashSet<u32>, MapError> {
        self.link_drops
            .keys()
            .map(|key| key.map(|Raw(key)| key.link))
            .collect()
    }

    /// Puts a connection's counters to zero. `dropping`: those that have drops counted, if known.
    fn reset_counters(
        &mut self,
        slot: u32,
        dropping: Option<&HashSet<u32>>,
    ) -> Result<(), MapError> {
        let zeros = vec![Raw(LinkCounters::default()); self.cpus];
        let zeros =
            PerCpuValues::try_from(zeros).map_err(|io_error| failed("per-CPU values", io_error))?;
        self.link_counters.set(slot, zeros, 0)?;
        self.usage.set(slot, Raw(Usage::default()), 0)?;
        if dropping.is_some_and(|dropping| !dropping.contains(&slot)) {
            return Ok(());
        }
        for reason in DropReason::ALL {
            let key = LinkDropKey {
                link: slot,
                reason: *reason as u32,
            };
            gone_is_fine(self.link_drops.remove(&Raw(key)))?;
        }
        Ok(())
    }

    /// The descriptor of a flow table.
    #[must_use]
    pub fn flow_table<F: Tables>(&self, table: Table) -> BorrowedFd<'_> {
        F::flows(self).of(table).map().fd().as_fd()
    }

    /// Calls `visit` for every entry of a flow table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn for_each_flow<F: Tables>(
        &self,
        table: Table,
        visit: impl FnMut(&FlowKey<F>, &Flow<F>),
    ) -> io::Result<()> {
        syscalls::for_each(self.flow_table::<F>(table), visit)
    }

    /// An entry of a flow table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn flow<F: Tables>(
        &self,
        table: Table,
        key: &FlowKey<F>,
    ) -> Result<Option<Flow<F>>, MapError> {
        match F::flows(self).of(table).get(&Raw(*key), 0) {
            Ok(flow) => Ok(Some(flow.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an entry of a flow table, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_flow<F: Tables>(
        &mut self,
        table: Table,
        key: &FlowKey<F>,
    ) -> Result<(), MapError> {
        gone_is_fine(F::flows_mut(self).of_mut(table).remove(&Raw(*key)))
    }

    /// What a connection uses of what it may, by link slot.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn usage(&self, slot: u32) -> Result<Usage, MapError> {
        Ok(self.usage.get(&slot, 0)?.0)
    }

    /// The descriptor of what connections use.
    #[must_use]
    pub fn usage_table(&self) -> BorrowedFd<'_> {
        self.usage.map().fd().as_fd()
    }

    /// Sets what a connection uses. Meters that the data path moves at the same moment may lose that.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_usage(&mut self, slot: u32, usage: Usage) -> Result<(), MapError> {
        self.usage.set(slot, Raw(usage), 0)
    }

    /// Sets the allocation state of the identifications in a bucket.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_identifications(
        &mut self,
        bucket: u32,
        state: Identifications,
    ) -> Result<(), MapError> {
        self.identifications.set(bucket, Raw(state), 0)
    }

    /// Stations that use an address of ours.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn conflicts(&self) -> io::Result<BTreeMap<AddressKey, Conflict>> {
        let mut conflicts = BTreeMap::new();
        let map = self.conflicts.map().fd().as_fd();
        syscalls::for_each(map, |key: &AddressKey, conflict: &Conflict| {
            conflicts.insert(*key, *conflict);
        })?;
        Ok(conflicts)
    }

    /// Forgets that a station used the address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_conflict(&mut self, key: &AddressKey) -> Result<(), MapError> {
        gone_is_fine(self.conflicts.remove(&Raw(*key)))
    }

    /// Forgets all datagrams of which fragments are awaited.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_fragments<F: Tables>(&mut self) -> Result<(), MapError> {
        let fragments = &mut F::flows_mut(self).fragments;
        let keys: Vec<_> = fragments.keys().collect::<Result<_, _>>()?;
        for key in keys {
            gone_is_fine(fragments.remove(&key))?;
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
    pub fn link_drops(
        &self,
        slot: u32,
        counters: &LinkCounters,
    ) -> Result<BTreeMap<DropReason, u64>, MapError> {
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            let key = LinkDropKey {
                link: slot,
                reason: *reason as u32,
            };
            match self.link_drops.get(&Raw(key), 0) {
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
    pub fn link_counters(&self, slot: u32) -> Result<LinkCounters, MapError> {
        let mut total = LinkCounters::default();
        for Raw(one) in self.link_counters.get(&slot, 0)?.iter() {
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
    places: u32,
) -> Result<BTreeMap<u32, T>, MapError> {
    let mut values = BTreeMap::new();
    for place in 0..places {
        let value = array.get(&place, 0)?.0;
        if value != T::default() {
            values.insert(place, value);
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
pub fn now() -> Tick {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the struct; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let nanoseconds = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
    Tick::from_nanoseconds(nanoseconds)
}
