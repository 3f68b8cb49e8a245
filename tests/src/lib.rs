//! The harness of the tests that need root and a real kernel.
//!
//! [`lab`] runs single packets through the native stages and through the kernel's program;
//! [`site`] is a gateway between network namespaces, with real programs at both ends.

pub mod agent;
pub mod assembler;
pub mod authority;
pub mod capture;
mod desired;
pub mod exchange;
pub mod families;
pub mod front;
pub mod fuzz;
pub mod general;
pub mod issuer;
pub mod lab;
pub mod namespace;
pub mod nginx;
pub mod office;
pub mod outcome;
pub mod packet;
pub mod pass;
pub mod path;
pub mod power;
pub mod process;
pub mod random;
pub mod relay;
pub mod site;
pub mod tagger;
pub mod wait;
pub mod words;
