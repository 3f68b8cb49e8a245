//! An XDP program that passes every frame. A veth with an XDP program receives redirected frames without GRO, so that
//! they can be recorded packet by packet.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::bpf::{
    asm::{Assembler, Operation, R0},
    syscalls::attach as attach_program,
};

/// `XDP_PASS`.
const XDP_PASS: i32 = 2;

/// Attaches the program to an interface of this thread's network namespace, until the result is dropped.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn attach(interface: &str) -> io::Result<OwnedFd> {
    let program = Assembler::default()
        .alu_immediate(Operation::Move, R0, XDP_PASS)
        .load_xdp()?;
    attach_program(program.as_fd(), nix::net::if_::if_nametoindex(interface)?)
}
