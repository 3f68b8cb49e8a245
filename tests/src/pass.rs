//! An XDP program of two instructions that lets everything pass. A veth that has one takes redirected
//! frames without GRO, so that what arrives there can be recorded packet by packet.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// `r0 = XDP_PASS; exit`, as the kernel's `struct bpf_insn` in native byte order.
const PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Link {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are those of the command, and what they point to is static.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands make a descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches it to an interface of this thread's network namespace, as long as the result lives.
///
/// # Errors
/// When the kernel refuses.
pub fn attach(interface: &str) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: BPF_PROG_TYPE_XDP,
        count: 2,
        instructions: PROGRAM.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::zeroed()
    };
    let program = bpf(BPF_PROG_LOAD, &mut load)?;
    let mut link = Link {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex: nix::net::if_::if_nametoindex(interface)?,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &mut link)
}
