//! What the build script of `gateway` and the commands of `cargo xtask` share.

pub mod codegen_client;
pub mod ebpf;
