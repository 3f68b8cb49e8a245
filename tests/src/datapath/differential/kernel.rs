//! Access to the loaded program and its maps.

use gateway::{
    bpf::{flow_tables, loader::ProgramInfo, maps::Maps, syscalls},
    compile::map_snapshot::MapSnapshot,
};
use std::{
    ffi::CString,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::DifferentialHarness;
use crate::packet::addresses::*;

impl DifferentialHarness {
    /// The kernel's flow tables.
    ///
    /// # Panics
    /// When the process has no descriptors left.
    #[must_use]
    pub fn flow_tables(&self) -> flow_tables::FlowTables {
        flow_tables::FlowTables::new(&self.maps).expect("descriptors")
    }

    /// The program, as the kernel has it.
    ///
    /// # Panics
    /// When it is not loaded.
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        let program = self.program.xdp().expect("the program");
        program.fd().expect("a descriptor").as_fd()
    }

    /// A map of the program's.
    ///
    /// # Panics
    /// When there is none of the name.
    #[must_use]
    pub fn map(&self, name: &str) -> OwnedFd {
        let directory = format!("maps-v{}", gateway_common::maps::LAYOUT_VERSION);
        let path = self.bpf.path().join(directory).join(name);
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
        syscalls::open_pinned(&path).expect("a pinned map")
    }

    /// The kernel's maps.
    #[must_use]
    pub const fn maps(&self) -> &Maps {
        &self.maps
    }

    /// What the maps hold, but for flows.
    #[must_use]
    pub const fn contents(&self) -> &MapSnapshot {
        &self.contents
    }

    /// The kernel's number for the interface of a side.
    #[must_use]
    pub fn ifindex(&self, side: Side) -> u32 {
        self.ifindexes[&side]
    }

    /// What the kernel says of the program.
    ///
    /// # Panics
    /// When it says nothing.
    #[must_use]
    pub fn program_info(&self) -> ProgramInfo {
        self.program.info().expect("the program's counts")
    }
}
