//! The harness of the tests that need root and a real kernel.
//!
//! [`lab`] runs single packets through the native stages and through the kernel's program;
//! [`site`] is a gateway between network namespaces, with real programs at both ends.

pub mod agent;
pub mod api_fixture;
pub mod assertions;
pub mod bpf_asm;
pub mod capture;
pub mod crash_consistency;
pub mod differential;
pub mod families;
pub mod fast_path_oracle;
mod fixture;
pub mod fuzz;
pub mod namespace;
pub mod nginx;
pub mod oidc_provider;
pub mod packet;
pub mod packet_builders;
pub mod process;
pub mod random;
pub mod scenario;
pub mod test_ca;
pub mod tls_fixture;
pub mod topology;
pub mod udp_client;
pub mod unix_proxy;
pub mod vlan_tagger;
pub mod wait;
pub mod xdp_pass;
