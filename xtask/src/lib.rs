//! Build of the XDP program, which the build script of `gateway` and the tasks of `cargo xtask` share.
//!
//! The tasks are in the binary, with their dependencies behind the feature `cli`: a build script that compiles a
//! command line parser would delay every build.

pub mod ebpf;
