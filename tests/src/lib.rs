//! The test kit: everything that the tests share. Most of them need root and a real kernel.
//!
//! * [`packet`] builds and parses packets, without any code of the data path.
//! * [`datapath`] sends single packets through the native data path and through the kernel's program, and
//!   compares the two.
//! * [`net`] makes network namespaces, runs processes in them and captures packets.
//! * [`services`] runs the agent and what surrounds it: backends, identity providers, certificate authorities.
//! * [`fault`] simulates power cuts.
//! * [`bpf`] assembles small BPF programs.

pub mod bpf;
pub mod datapath;
pub mod fault;
pub mod net;
pub mod packet;
pub mod random;
pub mod services;
