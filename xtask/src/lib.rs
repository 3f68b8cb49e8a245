//! Code that the build script of `gateway` and `cargo xtask` share.

pub mod codegen_client;
pub mod ebpf;
