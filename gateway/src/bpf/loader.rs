//! Loading of the XDP program, pins of the objects that must outlive the agent, and attachment to interfaces.
//!
//! The directory on the bpf file system holds `maps-vN/` with the maps of layout version N, and `links/` with the XDP
//! link of each interface, by its index, and the links of the tracepoints, by name. A restarted agent takes the maps
//! over and replaces the program in the links, so that forwarding is not interrupted.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{MapData, RingBuf},
    programs::{Xdp, XdpMode, links::FdLink},
};
use aya_log::EbpfLogger;
use gateway_common::{
    flow::{WAYS, hash::derive_hash_keys},
    maps::{LAYOUT_VERSION, name},
    pipeline::SHARE_SHIFT,
};
use log::{info, warn};
use serde::Serialize;

use crate::{
    bpf::{
        flow_tables::FlowTableSet,
        layouts,
        maps::Maps,
        migrate::Migration,
        syscalls,
        transmit_failures::{self, DeviceOffsets},
    },
    lock::Lock,
};

/// Object file of the XDP program.
pub static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway.bpf.o"));

/// Name of the XDP program in the object file and in the kernel.
pub const PROGRAM: &str = "plgw";

/// Size of the packet log: some 1,700 records.
const PACKET_LOG_BYTES: u32 = 1 << 18;

/// Magic number of the bpf file system (linux/magic.h).
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;

/// XDP mode in which the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// Native XDP: the driver runs the program before the kernel builds a socket buffer.
    Native,
    /// Generic XDP: the network stack runs the program. It works on every interface and is slow.
    Generic,
}

/// The loaded XDP program.
pub struct Program {
    /// The loaded object file, from which the maps have been taken out.
    ebpf: Ebpf,
    directory: PathBuf,
    /// Flow tables of another size, whose flows are taken over.
    migration: Migration,
    /// Numbers for the tracepoints, or the reason why they are unknown.
    offsets: Result<DeviceOffsets>,
}

/// Parameters that are fixed when the program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadParameters {
    /// Key of the hashes that select backends and source ports.
    pub seed: u64,
    /// Limit of rejects (TCP resets and ICMP errors) a second for each connection. 0 means no limit.
    pub rejects_per_second: u32,
    /// True if the program logs each packet that it drops. For troubleshooting, not for production.
    pub log_packets: bool,
    /// Number of flows that each flow table is made for.
    pub flow_table_size: u32,
    /// Established flows that one endpoint may have while all others have none, in percent of `flow_table_size`: 1 to
    /// 95.
    pub flow_table_share: u32,
}

impl LoadParameters {
    /// Returns the number of buckets of each flow table. A bucket has four places and a flow two entries, so half of the
    /// places are in use when the table has as many flows as it is made for.
    #[must_use]
    pub const fn flow_buckets(&self) -> u32 {
        const { assert!(WAYS == 4) };
        self.flow_table_size
    }

    /// Returns the share of an endpoint as a multiple of the flows that the table has room for.
    #[must_use]
    pub const fn share_factor(&self) -> u64 {
        let share = self.flow_table_share as u64;
        (share << SHARE_SHIFT) / (100 - share)
    }
}

/// Properties of the loaded program as the kernel reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramInfo {
    /// Id of the program in the kernel.
    pub id: u32,
    /// Number of instructions that the verifier processed, if the kernel reports it (Linux 5.16).
    pub verified_instructions: Option<u32>,
    /// Length of the machine code in bytes.
    pub machine_code_bytes: u32,
}

impl Program {
    /// Loads the program with the maps that are pinned in the directory, and makes the maps that are missing.
    ///
    /// # Errors
    /// Fails if the directory is not on a bpf file system, or if the kernel refuses the program or its maps.
    pub fn load(directory: &Path, parameters: LoadParameters) -> Result<(Self, Maps)> {
        let maps_directory = directory.join(format!("maps-v{LAYOUT_VERSION}"));
        make_directory(&maps_directory)?;
        let links = directory.join("links");
        make_directory(&links)?;

        let log_packets = u8::from(parameters.log_packets);
        // Levels of aya_log: 0 is off, 3 is info.
        let log_level: u8 = if parameters.log_packets { 3 } else { 0 };
        let offsets = DeviceOffsets::running();
        let DeviceOffsets {
            ifindex,
            netns,
            inode,
            own_netns,
        } = offsets.as_ref().copied().unwrap_or_default();
        let rejects = u64::from(parameters.rejects_per_second);
        let reject_cost = 1_000_000_000u64.checked_div(rejects).unwrap_or(0);
        let buckets = parameters.flow_buckets();
        let hash_keys = derive_hash_keys(parameters.seed);
        let (size, share) = (
            u64::from(parameters.flow_table_size),
            parameters.share_factor(),
        );
        layouts::take_over(directory, &maps_directory)?;
        let migration = Migration::prepare(&maps_directory, parameters)?;
        let mut loader = EbpfLoader::new();
        loader
            .default_map_pin_directory(&maps_directory)
            .override_global("LOG_PACKETS", &log_packets, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .override_global("DEVICE_IFINDEX", &ifindex, true)
            .override_global("DEVICE_NETNS", &netns, true)
            .override_global("NETNS_INODE", &inode, true)
            .override_global("OWN_NETNS", &own_netns, true)
            .override_global("HASH_SEED", &parameters.seed, true)
            .override_global("REJECT_COST", &reject_cost, true)
            .map_max_entries(name::FLOWS_V4, buckets)
            .map_max_entries(name::FLOWS_V6, buckets)
            .override_global("FLOW_BUCKETS", &buckets, true)
            .override_global("FLOW_HASH_KEYS", &hash_keys, true)
            .override_global("FLOW_TABLE_SIZE", &size, true)
            .override_global("FLOW_TABLE_SHARE", &share, true);
        if parameters.log_packets {
            loader.map_max_entries(name::PACKET_LOG, PACKET_LOG_BYTES);
        }
        let mut ebpf = loader.load(OBJECT).with_context(|| {
            format!(
                "the kernel refused the maps pinned in {}: run Linux 6.1 or newer, with CAP_BPF",
                maps_directory.display()
            )
        })?;
        program_mut(&mut ebpf)?
            .load()
            .context("the kernel refused the XDP program")?;
        let maps = Maps::from_ebpf(&mut ebpf, parameters)?;
        migration.copy(maps.flow_tables())?;
        let program = Self {
            ebpf,
            directory: directory.to_owned(),
            migration,
            offsets,
        };
        Ok((program, maps))
    }

    /// Finishes the migration of flows from tables of another size. To be called when no attached program uses those
    /// tables any more.
    ///
    /// # Errors
    /// Fails if the pins of the tables can't be removed.
    pub fn finish_migration(&mut self, tables: &FlowTableSet) -> Result<()> {
        std::mem::take(&mut self.migration).finish(tables)
    }

    /// Returns the program's properties.
    ///
    /// # Errors
    /// Fails if the kernel refuses to report them.
    pub fn info(&self) -> Result<ProgramInfo> {
        let info = self.xdp()?.info()?;
        Ok(ProgramInfo {
            id: info.id(),
            verified_instructions: info.verified_instruction_count(),
            machine_code_bytes: info.size_jitted(),
        })
    }

    /// Returns the program, for tests that run it on packets.
    ///
    /// # Errors
    /// Fails if the object file has no such program.
    pub fn xdp(&self) -> Result<&Xdp> {
        let program = self
            .ebpf
            .program(PROGRAM)
            .context("the object file has no XDP program: rebuild the agent")?;
        Ok(program.try_into()?)
    }

    /// Takes the packet log: the records of dropped and rejected packets. The program writes them only with
    /// [`LoadParameters::log_packets`].
    ///
    /// # Errors
    /// Fails if the program has no packet log.
    pub fn take_packet_log(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.ebpf.take_map(name::PACKET_LOG);
        let map = map.context("the XDP program has no packet log: rebuild the agent")?;
        Ok(map.try_into()?)
    }

    /// Takes the log of the tracepoint programs: frames that drivers did not take. They write it only with
    /// [`LoadParameters::log_packets`]. The lines go to `logger`.
    ///
    /// # Errors
    /// Fails if the programs have no log.
    pub fn take_program_log<T: log::Log>(&mut self, logger: T) -> Result<EbpfLogger<T>> {
        EbpfLogger::init_with_logger(&mut self.ebpf, logger)
            .context("could not read the log of the tracepoint programs")
    }

    /// Starts to count frames that drivers do not take, on this host and until the program is unloaded. A failure is
    /// logged only.
    pub fn count_transmit_failures(&mut self) {
        match &self.offsets {
            Ok(_) => transmit_failures::attach(&mut self.ebpf, &self.directory.join("links")),
            Err(error) => {
                warn!("bpf: frames that drivers refuse are not counted error=\"{error:#}\"")
            }
        }
    }

    /// Attaches the program to an interface. Replaces an earlier version of the program if one is attached.
    ///
    /// # Errors
    /// Fails if neither native nor generic XDP works, or if an XDP program of another origin is attached.
    pub fn attach(&mut self, ifindex: u32) -> Result<()> {
        let path = self.link_path(ifindex);
        let program = program_mut(&mut self.ebpf)?;
        if path.exists() {
            match replace_program(program, &path) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    // The interface of the pinned link was deleted, and another interface has its index now.
                    warn!("xdp attach: pinned link discarded ifindex={ifindex} error={error:#}");
                    fs::remove_file(&path)
                        .with_context(|| format!("could not remove {}", path.display()))?;
                }
            }
        }
        let link_id = match program.attach_to_if_index(ifindex, XdpMode::Driver) {
            Ok(link) => link,
            Err(native) => match program.attach_to_if_index(ifindex, XdpMode::Skb) {
                Ok(link) => {
                    let native = anyhow::Error::from(native);
                    warn!(
                        "xdp attach: native XDP failed, generic XDP used ifindex={ifindex} error={native:#}"
                    );
                    link
                }
                Err(generic) => return Err(attach_error(generic, native)),
            },
        };
        let link: FdLink = program
            .take_link(link_id)?
            .try_into()
            .context("the kernel has no links for XDP programs: run Linux 6.1 or newer")?;
        link.pin(&path)
            .with_context(|| format!("could not pin {}", path.display()))?;
        Ok(())
    }

    /// Detaches the program from every interface that is not in `keep`.
    ///
    /// # Errors
    /// Fails if the directory of links can't be read or changed.
    pub fn detach_except(&self, keep: &BTreeSet<u32>) -> Result<()> {
        for ifindex in self.attached()? {
            if !keep.contains(&ifindex) {
                info!("xdp detach: interface is no attachment ifindex={ifindex}");
                self.detach(ifindex)?;
            }
        }
        Ok(())
    }

    /// Detaches the program from an interface, if it is attached.
    ///
    /// # Errors
    /// Fails if the directory of links can't be changed.
    pub fn detach(&self, ifindex: u32) -> Result<()> {
        let path = self.link_path(ifindex);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the indexes of the interfaces that have a pinned link.
    ///
    /// # Errors
    /// Fails if the directory of links can't be read.
    pub fn attached(&self) -> Result<Vec<u32>> {
        let directory = self.directory.join("links");
        let mut attached = Vec::new();
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("could not read {}", directory.display()))?;
        for entry in entries {
            if let Some(ifindex) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                attached.push(ifindex);
            }
        }
        Ok(attached)
    }

    fn link_path(&self, ifindex: u32) -> PathBuf {
        self.directory.join("links").join(ifindex.to_string())
    }
}

fn program_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut(PROGRAM)
        .context("the object file has no XDP program: rebuild the agent")?;
    Ok(program.try_into()?)
}

/// Replaces the program in a pinned link. The replacement is atomic: each packet is processed by one of the two.
fn replace_program(program: &Xdp, path: &Path) -> Result<()> {
    let link = syscalls::open_pinned(&c_path(path)?).context("could not open the pinned link")?;
    syscalls::update_link(link.as_fd(), program.fd()?.as_fd())
        .context("could not replace the program in the link")
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .with_context(|| format!("the path {} contains a NUL byte", path.display()))
}

/// Builds the error of an attachment that failed in both modes.
fn attach_error(
    generic: aya::programs::ProgramError,
    native: aya::programs::ProgramError,
) -> anyhow::Error {
    let (native, generic) = (anyhow::Error::from(native), anyhow::Error::from(generic));
    let busy = [&native, &generic].iter().any(|error| {
        let cause = error.root_cause().downcast_ref::<io::Error>();
        cause.and_then(io::Error::raw_os_error) == Some(libc::EBUSY)
    });
    if busy {
        anyhow::anyhow!("another XDP program is attached to the interface: detach that one first")
    } else {
        generic.context(format!(
            "native XDP failed ({native:#}), and so did generic XDP"
        ))
    }
}

/// Makes a directory and checks that it is on a bpf file system.
fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("could not make the directory {}", path.display()))?;
    check_file_system(path)
}

/// Checks that a directory is on a bpf file system.
///
/// # Errors
/// Fails otherwise, with the remedy.
pub fn check_file_system(path: &Path) -> Result<()> {
    let name = c_path(path)?;
    // SAFETY: the C struct consists of integers, for which all zeros are valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads the path and writes the struct, both of which outlive the call.
    if unsafe { libc::statfs(name.as_ptr(), &raw mut stat) } != 0 {
        let error = io::Error::last_os_error();
        return Err(error)
            .with_context(|| format!("could not read the file system of {}", path.display()));
    }
    if stat.f_type != BPF_FS_MAGIC {
        bail!(
            "{} is not on a bpf file system: mount one with `mount -t bpf bpf /sys/fs/bpf`, or set bpf_dir to a \
             directory on one",
            path.display()
        );
    }
    Ok(())
}

/// Detaches the program from every interface and removes all pins, which ends all flows.
///
/// # Errors
/// Fails if an agent is running, or if the directory can't be changed.
pub fn unload(state_dir: &Path, bpf_dir: &Path) -> Result<()> {
    let _lock = Lock::for_maintenance(state_dir, bpf_dir)?;
    for directory in ["links".to_owned(), format!("maps-v{LAYOUT_VERSION}")] {
        let path = bpf_dir.join(directory);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("could not remove {}", path.display()));
            }
            _ => {}
        }
    }
    layouts::remove_others(bpf_dir)
}
