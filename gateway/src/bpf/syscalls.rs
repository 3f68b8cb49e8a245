//! `bpf(2)` commands that aya 0.14 lacks.
//!
//! Reading many entries at once (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6): entry by entry a million flows take seconds.
//! Deleting from a device map, and replacing the program of a pinned XDP link.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// Calls `bpf(2)`.
///
/// # Safety
/// The attributes are those of the command. The buffers that they point to have the sizes that the kernel derives from
/// the attributes and from the map, and they outlive the call.
unsafe fn bpf<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller guarantees that the attributes fit the command and point to valid buffers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::try_from(result).unwrap_or(0))
}

/// Number of entries that one call fetches. One bucket of a hash map must fit.
const BATCH_SIZE: usize = 4_096;

/// Batch member of the kernel's `union bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `visit` for every entry of a hash map.
///
/// Entries that are inserted or deleted meanwhile may be missed or visited twice. `K` and `V` must have the map's
/// sizes.
///
/// # Errors
/// Fails if the kernel refuses to read the map.
pub fn for_each<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut keys = vec![K::zeroed(); BATCH_SIZE];
    let mut values = vec![V::zeroed(); BATCH_SIZE];
    // Opaque position of the kernel in the table: 4 bytes for hash maps, at most a key for others.
    let (mut from, mut to) = ([0u8; 64], [0u8; 64]);
    let mut first = true;
    loop {
        let mut attributes = BatchAttributes {
            in_batch: if first { 0 } else { from.as_ptr() as u64 },
            out_batch: to.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(BATCH_SIZE).unwrap_or(u32::MAX),
            map_fd: map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the buffers have room for `count` keys and values of the map's sizes, and outlive the call.
        let done = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
            Ok(_) => false,
            // The end of the table: the entries that were read before it are valid.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => break Err(error),
        };
        let count = (attributes.count as usize).min(BATCH_SIZE);
        for (key, value) in keys[..count].iter().zip(&values[..count]) {
            visit(key, value);
        }
        if done {
            break Ok(());
        }
        first = false;
        (from, to) = (to, from);
    }
}

/// Counts the entries of a hash map of any layout, by iterating over its keys.
///
/// # Errors
/// Fails if the kernel refuses to read the map.
pub fn count_entries(map: BorrowedFd<'_>, key_size: u32) -> io::Result<u64> {
    const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
    let mut key = vec![0u8; key_size as usize];
    let mut next = key.clone();
    let mut count = 0;
    loop {
        let mut attributes = ElementAttributes {
            map_fd: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: if count == 0 { 0 } else { key.as_ptr() as u64 },
            value: next.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: both buffers have the map's key size and outlive the call.
        match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) } {
            Ok(_) => count += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut key, &mut next);
    }
}

/// Element member of the kernel's `union bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Returns an entry of a map, if it exists. `K` and `V` must have the map's sizes.
///
/// # Errors
/// Fails if the kernel refuses to read the map.
pub fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::zeroed();
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_mut(&mut value) as u64,
        ..ElementAttributes::zeroed()
    };
    // SAFETY: the attributes point to a key and a value of the map's sizes, which outlive the call.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Inserts an entry into a map or replaces it. `K` and `V` must have the map's sizes.
///
/// # Errors
/// Fails if the kernel refuses the write.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        ..ElementAttributes::zeroed()
    };
    // SAFETY: the attributes point to a key and a value of the map's sizes, which outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Deletes an entry of a map. `K` must have the size of the map's keys.
///
/// # Errors
/// Fails if there is no such entry, or if the kernel refuses the deletion.
pub fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(key) as u64,
        ..ElementAttributes::zeroed()
    };
    // SAFETY: the attributes point to a key of the map's size, which outlives the call.
    unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attributes) }.map(drop)
}

/// Object member of the kernel's `union bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens the BPF object that is pinned at a path.
///
/// # Errors
/// Fails if nothing is pinned there, or if this process may not open it.
pub fn open_pinned(path: &CStr) -> io::Result<OwnedFd> {
    let mut attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        ..ObjectAttributes::zeroed()
    };
    // SAFETY: the path is NUL-terminated and outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
    // SAFETY: the kernel has just returned the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Link update member of the kernel's `union bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkUpdateAttributes {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

/// Replaces the program of a link (Linux 5.9 for XDP). Each packet is processed by one of the two programs.
///
/// # Errors
/// Fails if the link's interface is gone, or if the kernel refuses the program.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdateAttributes {
        link_fd: link.as_raw_fd().cast_unsigned(),
        program_fd: program.as_raw_fd().cast_unsigned(),
        ..LinkUpdateAttributes::zeroed()
    };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}
