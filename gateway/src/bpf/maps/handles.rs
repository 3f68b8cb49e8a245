//! Handles of the maps of a loaded program.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{
        Array, DevMap, HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap,
    },
    sys::SyscallError,
    util::nr_cpus,
};
use bytemuck::Pod;
use gateway_common::{
    V4, V6,
    maps::{
        AddressConflict, AddressKey, Attachment, AttachmentDropKey, Backend, Connection,
        ConnectionCounters, ConnectionDropKey, ConnectionUsage, Egress, IdentificationState,
        Limits, LocalAddress, NatAddress, Port, PortKey, name,
    },
};

use crate::bpf::{flow_tables::FlowTableSet, loader::LoadParameters, maps::flows::FragmentRecords};

/// Key or value of a map, with the marker trait that aya requires.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodWrapper<T>(pub(super) T);

// SAFETY: the wrapper is transparent over `T`, and `T: bytemuck::Pod` is plain old data.
unsafe impl<T: Pod> aya::Pod for PodWrapper<T> {}

pub(super) type ArrayOf<T> = Array<MapData, PodWrapper<T>>;
pub(super) type HashOf<K, V> = BpfHashMap<MapData, PodWrapper<K>, PodWrapper<V>>;

/// Handles of all maps.
pub struct Maps {
    pub(super) attachments: ArrayOf<Attachment>,
    pub(super) attachment_overflow: HashOf<u32, Attachment>,
    pub(super) egress: ArrayOf<Egress>,
    pub(super) tx_ports: DevMap<MapData>,
    /// Second descriptor of `tx_ports`, because aya does not expose the one in [`DevMap`].
    pub(super) tx_ports_fd: OwnedFd,
    pub(super) addresses: HashOf<AddressKey, LocalAddress>,
    pub(super) ports: HashOf<PortKey, Port>,
    pub(super) maglev: ArrayOf<u32>,
    pub(super) backends: ArrayOf<Backend>,
    pub(super) nat_addresses: ArrayOf<NatAddress>,
    pub(super) connections: ArrayOf<Connection>,
    pub(super) limits: ArrayOf<Limits>,
    pub(super) usage: ArrayOf<ConnectionUsage>,
    pub(super) identifications: ArrayOf<IdentificationState>,
    pub(super) conflicts: HashOf<AddressKey, AddressConflict>,
    pub(super) fragments_v4: FragmentRecords<V4>,
    pub(super) fragments_v6: FragmentRecords<V6>,
    pub(super) flow_tables: FlowTableSet,
    pub(super) drops: PerCpuArray<MapData, u64>,
    pub(super) connection_drops: PerCpuHashMap<MapData, PodWrapper<ConnectionDropKey>, u64>,
    pub(super) attachment_drops: PerCpuHashMap<MapData, PodWrapper<AttachmentDropKey>, u64>,
    pub(super) connection_counters: PerCpuArray<MapData, PodWrapper<ConnectionCounters>>,
    pub(super) statistics: PerCpuArray<MapData, u64>,
    pub(super) cpus: usize,
}

impl Maps {
    /// Takes the maps out of a loaded program.
    ///
    /// # Errors
    /// Fails if a map is missing or has another type: the object file then belongs to another build of the agent.
    pub fn from_ebpf(ebpf: &mut Ebpf, parameters: LoadParameters) -> Result<Self> {
        let LoadParameters {
            seed,
            flow_table_size,
            ..
        } = parameters;
        let flow_tables = FlowTableSet::new(seed, flow_table_size, |name| array_map(ebpf, name))?;
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
            fragments_v4: FragmentRecords(take_map(ebpf, name::FRAGMENTS_V4)?),
            fragments_v6: FragmentRecords(take_map(ebpf, name::FRAGMENTS_V6)?),
            flow_tables,
            drops: take_map(ebpf, name::DROPS)?,
            connection_drops: take_map(ebpf, name::CONN_DROPS)?,
            attachment_drops: take_map(ebpf, name::ATTACH_DROPS)?,
            connection_counters: take_map(ebpf, name::CONN_COUNTERS)?,
            statistics: take_map(ebpf, name::STATISTICS)?,
            cpus: nr_cpus().map_err(|(file, error)| {
                anyhow::Error::from(error).context(format!("could not read {file}"))
            })?,
        })
    }
}

/// Returns the descriptor of an array map, and its number of elements.
fn array_map<'a>(ebpf: &'a Ebpf, name: &str) -> Result<(BorrowedFd<'a>, u32)> {
    let Some(Map::Array(map)) = ebpf.map(name) else {
        bail!("the XDP program has no array map {name}: rebuild the agent");
    };
    let elements = map
        .info()
        .with_context(|| format!("could not read the size of {name}"))?
        .max_entries();
    Ok((map.fd().as_fd(), elements))
}

pub(super) fn take_map<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<T> {
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the XDP program has no map {name}: rebuild the agent"))?;
    T::try_from(map)
        .with_context(|| format!("map {name} has an unexpected type: rebuild the agent"))
}

/// Treats the deletion of an absent entry as success.
pub(super) fn ignore_not_found(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

pub(super) fn syscall_error(call: &'static str, io_error: io::Error) -> MapError {
    MapError::SyscallError(SyscallError { call, io_error })
}
