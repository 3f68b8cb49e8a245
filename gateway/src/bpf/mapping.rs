//! Mappings of array maps: their elements in this process's memory, shared with the data path.

use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
};

use bytemuck::AnyBitPattern;

/// An array map whose elements are mapped into memory (`BPF_F_MMAPABLE`, Linux 5.5). The data path reads and writes
/// them at the same time.
#[derive(Debug)]
pub struct ArrayMapping<T> {
    elements: NonNull<T>,
    count: u32,
    element: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway. Elements are accessed by volatile and atomic operations only.
unsafe impl<T: Send> Send for ArrayMapping<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Send> Sync for ArrayMapping<T> {}

impl<T> ArrayMapping<T> {
    /// Maps an array map with `count` elements of type `T`, whose size is a multiple of 8.
    ///
    /// # Errors
    /// Fails if the kernel refuses the mapping: the map is not mappable, or has fewer elements.
    pub fn new(map: BorrowedFd<'_>, count: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let length = Self::length(count).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping of a file, at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length.get(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        Self::from_mapped(address, count)
    }

    /// Returns a copy in memory of this process, with each element converted. `convert` gets an element as it was read
    /// twice, one after the other: what differs was being written.
    ///
    /// # Errors
    /// Fails if there is no memory.
    pub fn converted(&self, convert: impl Fn(T, T) -> T) -> io::Result<Self>
    where
        T: AnyBitPattern,
    {
        let length = Self::length(self.count).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping of no file, at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length.get(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let copy = Self::from_mapped(address, self.count)?;
        for index in 0..self.count {
            let (first, second) = (self.read(index), self.read(index));
            if let (Some(first), Some(second), Some(to)) = (first, second, copy.element(index)) {
                // SAFETY: within the mapping, aligned, and nothing else has its address yet.
                unsafe { to.write(convert(first, second)) };
            }
        }
        Ok(copy)
    }

    /// Takes a mapping that the kernel returned.
    fn from_mapped(address: *mut libc::c_void, count: u32) -> io::Result<Self> {
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let elements = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            elements,
            count,
            element: PhantomData,
        })
    }

    fn length(count: u32) -> Option<NonZeroUsize> {
        let elements = usize::try_from(count).ok()?;
        NonZeroUsize::new(elements.checked_mul(size_of::<T>())?)
    }

    /// Returns the number of elements.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Returns a pointer to an element, which is valid while the mapping exists.
    #[must_use]
    pub fn element(&self, index: u32) -> Option<NonNull<T>> {
        let offset = usize::try_from(index).ok().filter(|_| index < self.count)?;
        // SAFETY: within the mapping, by the comparison.
        Some(unsafe { self.elements.add(offset) })
    }

    /// Returns a copy of an element. The data path may be writing it.
    #[must_use]
    pub fn read(&self, index: u32) -> Option<T>
    where
        T: AnyBitPattern,
    {
        // SAFETY: within the mapping, aligned, and all bytes are a value.
        self.element(index)
            .map(|element| unsafe { element.read_volatile() })
    }
}

impl<T> Drop for ArrayMapping<T> {
    fn drop(&mut self) {
        if let Some(length) = Self::length(self.count) {
            // SAFETY: the mapping was made with this length, and nothing refers to it any more.
            unsafe { libc::munmap(self.elements.as_ptr().cast(), length.get()) };
        }
    }
}
