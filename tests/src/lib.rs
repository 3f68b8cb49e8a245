//! The harness of the tests that need root and a real kernel.
//!
//! [`lab`] runs single packets through the native stages and through the kernel's program;
//! [`site`] is a gateway between network namespaces, with real programs at both ends.

pub mod agent;
pub mod bpf_asm;
pub mod test_ca;
pub mod capture;
mod fixture;
pub mod udp_client;
pub mod families;
pub mod api_fixture;
pub mod fuzz;
pub mod fast_path_oracle;
pub mod oidc_provider;
pub mod differential;
pub mod namespace;
pub mod nginx;
pub mod tls_fixture;
pub mod assertions;
pub mod packet;
pub mod xdp_pass;
pub mod scenario;
pub mod crash_consistency;
pub mod process;
pub mod random;
pub mod unix_proxy;
pub mod topology;
pub mod vlan_tagger;
pub mod wait;
pub mod packet_builders;
