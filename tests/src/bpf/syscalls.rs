//! The commands of bpf(2) that the tests need.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

const BPF_MAP_CREATE: libc::c_int = 0;

const BPF_PROG_LOAD: libc::c_int = 5;

const BPF_PROG_TEST_RUN: libc::c_int = 10;

const BPF_OBJ_PIN: libc::c_int = 6;

pub(super) const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

pub(super) const BPF_PROG_TYPE_XDP: u32 = 6;

pub(super) const BPF_XDP: u32 = 37;

pub(super) const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

fn bpf<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, and what they point to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).unwrap_or(0))
}

fn owned_fd(number: i32) -> OwnedFd {
    // SAFETY: a command that makes one returned it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ProgLoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

pub(super) fn load(code: &[u64], kind: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    // The verifier's log of a loop would exceed any buffer, so the log is requested after a failure only.
    let mut attributes = ProgLoadAttributes {
        kind,
        count: u32::try_from(code.len()).expect("a short program"),
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags,
        name: [0; 16],
        ifindex: 0,
        attach_type,
    };
    match bpf(BPF_PROG_LOAD, &mut attributes) {
        Ok(program) => Ok(owned_fd(program)),
        Err(error) => {
            let mut log = vec![0u8; 1 << 16];
            attributes.log_level = 1;
            attributes.log_size = u32::try_from(log.len()).expect("a short log");
            attributes.log = log.as_mut_ptr() as u64;
            // The second call fails like the first, and writes the log.
            let _same = bpf(BPF_PROG_LOAD, &mut attributes);
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0');
            Err(io::Error::other(format!("{error}:\n{log}")))
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjPinAttributes {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Pins a program in a BPF file system.
///
/// # Errors
/// Fails if the kernel refuses it.
pub fn pin(program: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let mut attributes = ObjPinAttributes {
        path: path.as_ptr() as u64,
        descriptor: program.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attributes).map(|_| ())
}

/// Types of maps with keys of 4 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_PROG_ARRAY`.
    Programs = 3,
}

/// Creates a map with keys of 4 bytes.
///
/// # Errors
/// Fails if the kernel refuses it.
pub fn create_map(kind: MapKind, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    let mut attributes = [kind as u32, 4, value_size, entries, 0];
    bpf(BPF_MAP_CREATE, &mut attributes).map(owned_fd)
}

const BPF_MAP_TYPE_HASH: u32 = 1;

/// Elements are allocated when they are inserted.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Creates a hash map whose elements are not allocated before they are inserted.
///
/// # Errors
/// Fails if the kernel refuses it.
pub fn create_hash_map(key_size: u32, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    let mut attributes = [
        BPF_MAP_TYPE_HASH,
        key_size,
        value_size,
        entries,
        BPF_F_NO_PREALLOC,
    ];
    bpf(BPF_MAP_CREATE, &mut attributes).map(owned_fd)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TestRunAttributes {
    program: u32,
    result: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// `BPF_F_TEST_XDP_LIVE_FRAMES`: the kernel carries out the program's verdicts.
const LIVE_FRAMES: u32 = 1 << 1;

/// Runs a program `repeat` times on a frame received by an interface. Returns the last result, and the mean time of a
/// run in nanoseconds.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn run(
    program: BorrowedFd<'_>,
    ifindex: u32,
    frame: &[u8],
    repeat: u32,
) -> io::Result<(u32, u32)> {
    let mut after = Vec::new();
    let attributes = test_run(program, ifindex, frame, repeat, &mut after)?;
    Ok((attributes.result, attributes.duration))
}

/// Runs a program once on a frame received by an interface. Returns its result, and the frame as it is afterwards.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn run_once(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
    let mut after = Vec::new();
    let attributes = test_run(program, ifindex, frame, 1, &mut after)?;
    after.truncate(usize::try_from(attributes.data_out_size).unwrap_or(0));
    Ok((attributes.result, after))
}

fn test_run(
    program: BorrowedFd<'_>,
    ifindex: u32,
    frame: &[u8],
    repeat: u32,
    after: &mut Vec<u8>,
) -> io::Result<TestRunAttributes> {
    after.resize(frame.len() + 256, 0);
    let context = xdp_md(ifindex, frame);
    let mut attributes = TestRunAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_size: u32::try_from(frame.len()).expect("a frame"),
        data_in: frame.as_ptr() as u64,
        data_out_size: u32::try_from(after.len()).expect("a frame"),
        data_out: after.as_mut_ptr() as u64,
        repeat,
        context_in_size: u32::try_from(size_of_val(&context)).expect("a context"),
        context_in: context.as_ptr() as u64,
        ..TestRunAttributes::zeroed()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes)
}

/// Runs a program in this thread's network namespace on copies of a frame, and carries out its verdicts.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn send_live_frames(
    program: BorrowedFd<'_>,
    frame: &[u8],
    repeat: u32,
    batch: u32,
) -> io::Result<()> {
    let mut attributes = TestRunAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_size: u32::try_from(frame.len()).expect("a frame"),
        data_in: frame.as_ptr() as u64,
        repeat,
        flags: LIVE_FRAMES,
        batch,
        ..TestRunAttributes::zeroed()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes).map(|_| ())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreateAttributes {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

const BPF_LINK_CREATE: libc::c_int = 28;

const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Attaches a program to an interface of this thread's network namespace, until the result is dropped.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn attach(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut link = LinkCreateAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &mut link).map(owned_fd)
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_md(ifindex: u32, frame: &[u8]) -> [u32; 6] {
    let length = u32::try_from(frame.len()).expect("a frame");
    [0, length, 0, ifindex, 0, 0]
}
