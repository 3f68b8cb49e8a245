//! Access to the loaded program and its maps.

use gateway::{
    bpf::{flow_tables::FlowTableSet, loader::ProgramInfo, maps::Maps, syscalls},
    compile::map_snapshot::MapSnapshot,
};
use std::{
    ffi::CString,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::DifferentialHarness;
use crate::packet::addresses::*;

impl DifferentialHarness {
    /// Returns the kernel's flow tables.
    #[must_use]
    pub const fn flow_tables(&self) -> &FlowTableSet {
        self.maps.flow_tables()
    }

    /// Returns the loaded program.
    ///
    /// # Panics
    /// Panics if it is not loaded.
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        let program = self.program.xdp().expect("the program");
        program.fd().expect("a descriptor").as_fd()
    }

    /// Returns a map of the program.
    ///
    /// # Panics
    /// Panics if there is none of the name.
    #[must_use]
    pub fn map(&self, name: &str) -> OwnedFd {
        let directory = format!("maps-v{}", gateway_common::maps::LAYOUT_VERSION);
        let path = self.bpf.path().join(directory).join(name);
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
        syscalls::open_pinned(&path).expect("a pinned map")
    }

    /// Returns the kernel's maps.
    #[must_use]
    pub const fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Returns the contents of the maps, flows excepted.
    #[must_use]
    pub const fn contents(&self) -> &MapSnapshot {
        &self.contents
    }

    /// Returns the interface index of a side.
    #[must_use]
    pub fn ifindex(&self, side: Side) -> u32 {
        self.ifindexes[&side]
    }

    /// Returns the kernel's information on the program.
    ///
    /// # Panics
    /// Panics if the kernel returns none.
    #[must_use]
    pub fn program_info(&self) -> ProgramInfo {
        self.program.info().expect("the program's counts")
    }
}
