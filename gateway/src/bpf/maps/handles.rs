//! Handles of the maps of a loaded program.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
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
        AddressConflict, AddressKey, Attachment, Backend, Connection, ConnectionCounters,
        ConnectionDropKey, ConnectionUsage, Egress, IdentificationState, Limits, LocalAddress,
        NatAddress, Port, PortKey, name,
    },
};

use crate::bpf::maps::flows::FlowMaps;

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
    pub(super) flows_v4: FlowMaps<V4>,
    pub(super) flows_v6: FlowMaps<V6>,
    pub(super) drops: PerCpuArray<MapData, u64>,
    pub(super) connection_drops: PerCpuHashMap<MapData, PodWrapper<ConnectionDropKey>, u64>,
    pub(super) connection_counters: PerCpuArray<MapData, PodWrapper<ConnectionCounters>>,
    pub(super) statistics: PerCpuArray<MapData, u64>,
    pub(super) cpus: usize,
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
