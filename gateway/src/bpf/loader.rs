//! The XDP program: loading it, pinning what must outlive the agent, attaching it to interfaces.
//!
//! Under the directory on the bpf file system: `maps-vN/` with the maps of layout version N, and
//! `links/IFINDEX` with the attachment of each interface. A restarted agent takes the maps over and
//! replaces the program in the links, so no packet finds the gateway away.

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
    maps::{MapData, MapInfo},
    programs::{Xdp, XdpMode, links::FdLink},
};
use gateway_common::maps::{LAYOUT_VERSION, name};
use log::{info, warn};
use serde::Serialize;

use crate::{
    bpf::{maps::Maps, syscalls},
    lock::Lock,
};

/// The compiled program.
pub static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway.bpf.o"));

/// The program's name in the object file and in the kernel.
pub const PROGRAM: &str = "plgw";

/// The magic number of the bpf file system (linux/magic.h).
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// By the driver, before the kernel builds a socket buffer.
    Native,
    /// By the kernel's generic code: works on every interface, and is slow.
    Generic,
}

/// The loaded program.
pub struct Program {
    /// Holds the program; its maps have been taken out.
    ebpf: Ebpf,
    directory: PathBuf,
}

/// What the program is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadParameters {
    /// The key of the hashes that choose backends and ports.
    pub seed: u64,
    /// How many packets that go no further are answered, for each connection; 0: all of them.
    pub rejects_per_second: u32,
    /// Whether it logs what it drops: for looking into a problem, not for production.
    pub log_packets: bool,
}

/// What loading the program says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramInfo {
    /// The kernel's number for it.
    pub id: u32,
    /// Instructions that the verifier looked at, where the kernel tells (5.16).
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code.
    pub machine_code_bytes: u32,
}

impl Program {
    /// Loads the program, with the maps that are pinned already or new ones.
    ///
    /// # Errors
    /// When the directory is not on a bpf file system, or the kernel refuses the program.
    pub fn load(directory: &Path, parameters: LoadParameters) -> Result<(Self, Maps)> {
        let maps_directory = directory.join(format!("maps-v{LAYOUT_VERSION}"));
        make_directory(&maps_directory)?;
        let links = directory.join("links");
        make_directory(&links)?;

        // aya_log's levels: 0 is off, 4 is debug.
        let level: u8 = if parameters.log_packets { 4 } else { 0 };
        let rejects = u64::from(parameters.rejects_per_second);
        let reject_cost = 1_000_000_000u64.checked_div(rejects).unwrap_or(0);
        let mut loader = EbpfLoader::new();
        loader
            .default_map_pin_directory(&maps_directory)
            .override_global("AYA_LOG_LEVEL", &level, true)
            .override_global("HASH_SEED", &parameters.seed, true)
            .override_global("REJECT_COST", &reject_cost, true);
        let mut ebpf = loader.load(OBJECT).with_context(|| {
            format!(
                "the kernel did not take the maps (Linux 6.1 or newer is needed, with CAP_BPF); \
                 they are pinned in {}",
                maps_directory.display()
            )
        })?;
        program_mut(&mut ebpf)?
            .load()
            .context("the kernel refused the XDP program")?;
        let maps = Maps::from_ebpf(&mut ebpf)?;
        let program = Self {
            ebpf,
            directory: directory.to_owned(),
        };
        Ok((program, maps))
    }

    /// What the kernel says of the program.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn info(&self) -> Result<ProgramInfo> {
        let info = self.xdp()?.info()?;
        Ok(ProgramInfo {
            id: info.id(),
            verified_instructions: info.verified_instruction_count(),
            machine_code_bytes: info.size_jitted(),
        })
    }

    /// The program, for running it on packets in tests.
    ///
    /// # Errors
    /// When the object file has no such program.
    pub fn xdp(&self) -> Result<&Xdp> {
        let program = self
            .ebpf
            .program(PROGRAM)
            .context("the object file has no program")?;
        Ok(program.try_into()?)
    }

    /// Starts forwarding the program's log to this process's; only with `log_packets`.
    ///
    /// # Errors
    /// When the program has no log.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>> {
        aya_log::EbpfLogger::init(&mut self.ebpf).context("the program's log can't be read")
    }

    /// Attaches the program to an interface, in place of an earlier version of it if there is one.
    ///
    /// # Errors
    /// When neither native nor generic XDP works, or another XDP program is there.
    pub fn attach(&mut self, ifindex: u32) -> Result<()> {
        let path = self.link_path(ifindex);
        let program = program_mut(&mut self.ebpf)?;
        if path.exists() {
            match replace_program(program, &path) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    // The interface that it was for is gone; another has its number now.
                    warn!("interface {ifindex}: attaching anew, since {error:#}");
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
                    warn!("interface {ifindex}: generic XDP, since native XDP failed: {native:#}");
                    link
                }
                Err(generic) => return Err(attach_error(generic, native)),
            },
        };
        let link: FdLink = program
            .take_link(link_id)?
            .try_into()
            .context("the kernel has no links for XDP programs (Linux 5.9 is needed)")?;
        link.pin(&path)
            .with_context(|| format!("could not pin {}", path.display()))?;
        Ok(())
    }

    /// Detaches from every interface that is not one of these.
    ///
    /// # Errors
    /// When the directory can't be read or changed.
    pub fn detach_except(&self, keep: &BTreeSet<u32>) -> Result<()> {
        for ifindex in self.attached()? {
            if !keep.contains(&ifindex) {
                info!("detaching from interface {ifindex}");
                self.detach(ifindex)?;
            }
        }
        Ok(())
    }

    /// Detaches from an interface, if attached.
    ///
    /// # Errors
    /// When the directory can't be changed.
    pub fn detach(&self, ifindex: u32) -> Result<()> {
        let path = self.link_path(ifindex);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The interfaces that have a link.
    ///
    /// # Errors
    /// When the directory can't be read.
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
        .context("the object file has no program")?;
    Ok(program.try_into()?)
}

/// Puts the program into a pinned link; packets meet the one or the other.
fn replace_program(program: &Xdp, path: &Path) -> Result<()> {
    let link = syscalls::open_pinned(&c_path(path)?).context("the link can't be opened")?;
    syscalls::update_link(link.as_fd(), program.fd()?.as_fd())
        .context("the link does not take the program")
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .with_context(|| format!("{} is no path", path.display()))
}

/// Why neither way of attaching worked.
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
        anyhow::anyhow!("another XDP program is attached to it already: detach that one first")
    } else {
        generic.context(format!(
            "neither native XDP ({native:#}) nor generic XDP works"
        ))
    }
}

/// Makes a directory, which must be on a bpf file system.
fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("could not make the directory {}", path.display()))?;
    let name = c_path(path)?;
    // SAFETY: an all-zero statfs is a valid value of the C struct.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads the path and writes the struct, both of which outlive the call.
    if unsafe { libc::statfs(name.as_ptr(), &raw mut stat) } != 0 {
        let error = io::Error::last_os_error();
        return Err(error).with_context(|| format!("could not look at {}", path.display()));
    }
    if stat.f_type != BPF_FS_MAGIC {
        bail!(
            "{} is not on a bpf file system, where the program is pinned: mount one with \
             `mount -t bpf bpf /sys/fs/bpf`, or set bpf_dir to where there is one",
            path.display()
        );
    }
    Ok(())
}

/// Refuses to go back behind a newer program, and to end flows that nobody said may end: those in maps of
/// an older layout can't be taken over.
///
/// # Errors
/// When flows may not end, or a newer program made the maps.
pub fn check_other_layouts(directory: &Path, discard_incompatible_flows: bool) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_prefix("maps-v"))
            .and_then(|version| version.parse::<u32>().ok());
        let Some(version) = version.filter(|version| *version != LAYOUT_VERSION) else {
            continue;
        };
        let shown = directory.display();
        if version > LAYOUT_VERSION {
            bail!(
                "the maps in {shown} have layout {version}, this program knows up to \
                 {LAYOUT_VERSION}: a newer program made them, and its flows go on. Use that one, or \
                 end them with its `plgw unload`"
            );
        }
        let flows = count_flows(&entry.path())?;
        if flows > 0 && !discard_incompatible_flows {
            bail!(
                "the maps in {shown} have layout {version}, this program has {LAYOUT_VERSION}: their \
                 {flows} flow entries can't be taken over. They go on as long as this program does \
                 not start; to end them and go on with the new layout, start it once with \
                 --discard-incompatible-flows true"
            );
        }
        warn!(
            "the maps in {shown} have layout {version}, this program has {LAYOUT_VERSION}: {flows} flow \
             entries end now"
        );
    }
    Ok(())
}

/// How many entries the flow tables have that are pinned there, whatever is in them.
fn count_flows(directory: &Path) -> Result<u64> {
    let mut flows = 0;
    for table in [name::FLOWS_V4, name::FLOWS_V6] {
        let path = directory.join(table);
        let Ok(info) = MapInfo::from_pin(&path) else {
            continue;
        };
        let map = MapData::from_pin(&path)
            .with_context(|| format!("could not open {}", path.display()))?;
        flows += syscalls::count_entries(map.fd().as_fd(), info.key_size())
            .with_context(|| format!("could not read {}", path.display()))?;
    }
    Ok(flows)
}

/// Removes the maps of other layouts, when no program uses them any more.
///
/// # Errors
/// When the directory can't be changed.
pub fn remove_other_layouts(directory: &Path) -> Result<()> {
    let current = format!("maps-v{LAYOUT_VERSION}");
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("maps-v") && name != current {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Detaches the program from every interface and removes everything that is pinned: traffic through
/// the gateway stops, and its flows are forgotten.
///
/// # Errors
/// When the agent runs, or the directory can't be changed.
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
    remove_other_layouts(bpf_dir)
}
