//! Tracepoints that count frames which drivers did not take. They are pinned, and count without the agent too.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{RawTracePoint, links::FdLink},
};
use log::warn;

use crate::bpf::btf::KernelTypes;

/// Programs of the object file, and the tracepoint of each.
const TRACEPOINTS: [(&str, &str); 2] = [
    ("plgw_xmit", "xdp_devmap_xmit"),
    ("plgw_redirect", "xdp_redirect_err"),
];

/// Numbers by which the programs recognize the devices of the agent's network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeviceOffsets {
    /// Offset of the index in a network device.
    pub(super) ifindex: u32,
    /// Offset of the network namespace in a network device.
    pub(super) netns: u32,
    /// Offset of the inode number in a network namespace.
    pub(super) inode: u32,
    /// Inode number of the agent's network namespace.
    pub(super) own_netns: u32,
}

impl DeviceOffsets {
    /// Returns the numbers for the running kernel and the present network namespace.
    ///
    /// # Errors
    /// Fails if the kernel does not describe its types.
    pub(super) fn running() -> Result<Self> {
        let types = KernelTypes::running()?;
        let netns = fs::metadata("/proc/self/ns/net").context("could not read the namespace")?;
        Ok(Self {
            ifindex: types.offset(["net_device", "ifindex", ""])?,
            netns: types.offset(["net_device", "nd_net", "net"])?,
            inode: types.offset(["net", "ns", "inum"])?,
            own_netns: u32::try_from(netns.ino()).context("the namespace has a strange number")?,
        })
    }
}

/// Attaches the programs, in place of those of an earlier agent, and pins them in the directory.
///
/// Without them frames are forwarded as before, so a failure is logged only.
pub(super) fn attach(ebpf: &mut Ebpf, directory: &Path) {
    for (program, tracepoint) in TRACEPOINTS {
        if let Err(error) = attach_one(ebpf, program, tracepoint, &directory.join(tracepoint)) {
            warn!(
                "bpf: frames that drivers refuse are not counted tracepoint={tracepoint} error=\"{error:#}\""
            );
        }
    }
}

fn attach_one(ebpf: &mut Ebpf, program: &str, tracepoint: &str, path: &Path) -> Result<()> {
    let program: &mut RawTracePoint = ebpf
        .program_mut(program)
        .with_context(|| format!("the object file has no program {program}: rebuild the agent"))?
        .try_into()?;
    program.load()?;
    let link = program.attach(tracepoint)?;
    let link = FdLink::from(program.take_link(link)?);
    // The kernel can't replace the program of such a link. For a moment both count.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not remove {}", path.display()));
        }
        _ => {}
    }
    link.pin(path)
        .with_context(|| format!("could not pin {}", path.display()))?;
    Ok(())
}
