//! An XDP program that lets everything pass. A veth that has one takes redirected frames without GRO, so that
//! what arrives there can be recorded packet by packet.

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

/// Attaches it to an interface of this thread's network namespace, as long as the result lives.
///
/// # Errors
/// When the kernel refuses.
pub fn attach(interface: &str) -> io::Result<OwnedFd> {
    let program = Assembler::default()
        .alu_immediate(Operation::Move, R0, XDP_PASS)
        .load_xdp()?;
    attach_program(program.as_fd(), nix::net::if_::if_nametoindex(interface)?)
}
