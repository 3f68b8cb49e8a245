//! Small BPF programs of the tests, and the system calls that load and run them.

pub mod asm;
pub mod syscalls;
pub mod xdp_pass;
