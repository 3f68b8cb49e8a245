//! A classifier that pushes a VLAN tag into the metadata of each packet that leaves by an interface. A bridge with VLAN
//! filtering does so for a tagged port, and so does a VLAN interface.

use std::{ffi::CString, io, os::fd::AsFd as _};

use crate::{
    bpf::{
        asm::{Assembler, Operation, R0, R2, R3, VLAN_PUSH},
        syscalls::pin,
    },
    net::{
        namespace::{BpfDirectory, Namespace},
        process::succeed,
    },
};

/// 802.1Q, in network byte order.
const TAG: u16 = 0x8100_u16.to_be();

/// Tags packets that leave a namespace by an interface with this VLAN, as long as the interface exists.
///
/// # Errors
/// Fails if the kernel does not take the program.
///
/// # Panics
/// Panics if `tc` fails.
pub fn push_vlan_tags(namespace: &Namespace, interface: &str, vlan: u16) -> io::Result<()> {
    let directory = BpfDirectory::new();
    std::fs::create_dir_all(directory.path())?;
    let path = directory.path().join("tagger");
    let program = Assembler::default()
        .alu_immediate(Operation::Move, R2, TAG.into())
        .alu_immediate(Operation::Move, R3, vlan.into())
        .call(VLAN_PUSH)
        .alu_immediate(Operation::Move, R0, 0)
        .load_classifier()?;
    let name = CString::new(path.display().to_string()).map_err(io::Error::other)?;
    pin(program.as_fd(), &name)?;
    succeed(&mut namespace.command_line(&format!("tc qdisc add dev {interface} clsact")));
    succeed(&mut namespace.command_line(&format!(
        "tc filter add dev {interface} egress bpf direct-action object-pinned {}",
        path.display()
    )));
    Ok(())
}
