//! Small BPF programs of the tests, and the system calls that load and run them; and the stack that an object's
//! functions use.

pub mod asm;
pub mod stack;
pub mod syscalls;
pub mod xdp_pass;
