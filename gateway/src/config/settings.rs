//! The settings: every key is declared once, for the file, the command line and the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use ipnet::IpNet;
use log::LevelFilter;
use serde::{Deserialize, Serialize, Serializer};

use crate::auth::oidc::IssuerSettings;

/// Declares the settings: `key: Type = "ENVIRONMENT_VARIABLE", "NAME OF THE VALUE IN THE HELP";`
macro_rules! settings {
    ($(
        $(#[$attribute:meta])*
        $key:ident: $type:ident $(<$item:ident>)? = $variable:literal, $value:literal;
    )*) => {
        /// The keys as flags, as environment variables, and in the file.
        #[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Settings {$(
            #[arg(long, env = $variable, value_name = $value)]
            #[serde(skip_serializing_if = "Option::is_none")]
            $(#[$attribute])*
            pub $key: Option<$type $(<$item>)?>,
        )*}

        impl Settings {
            /// Names of all keys.
            pub const KEYS: &[&str] = &[$(stringify!($key)),*];

            /// Returns these settings, with the values of `other` where a key is unset.
            pub(super) fn with_fallback(self, other: Self) -> Self {
                Self {$(
                    $key: self.$key.or(other.$key),
                )*}
            }
        }
    };
}

/// Serializes a log level as the documents have it.
fn in_lower_case<S: Serializer>(
    level: &Option<LevelFilter>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = level.map(|level| level.as_str().to_lowercase());
    text.serialize(serializer)
}

settings! {
    /// Directory of the store [default: /var/lib/plgw]
    state_dir: PathBuf = "PLGW_STATE_DIR", "DIR";
    /// Directory of the control socket [default: /run/plgw]
    run_dir: PathBuf = "PLGW_RUN_DIR", "DIR";
    /// Directory of the pinned program and maps, on a bpf file system [default: /sys/fs/bpf/plgw]
    bpf_dir: PathBuf = "PLGW_BPF_DIR", "DIR";
    /// Group that may use the control socket, if it exists [default: plgw]
    socket_group: String = "PLGW_SOCKET_GROUP", "GROUP";
    /// Domain of all aliases [default: privatelink.internal]
    alias_domain: String = "PLGW_ALIAS_DOMAIN", "DOMAIN";
    /// Log level: error, warn, info, debug or trace [default: info]
    #[serde(serialize_with = "in_lower_case")]
    log: LevelFilter = "PLGW_LOG", "LEVEL";
    /// Log each packet that is dropped or rejected, with the reason [default: false]
    log_packets: bool = "PLGW_LOG_PACKETS", "BOOL";
    /// Discard flows stored in an incompatible map layout instead of refusing to start [default: false]
    discard_incompatible_flows: bool = "PLGW_DISCARD_INCOMPATIBLE_FLOWS", "BOOL";
    /// Attach interfaces whose driver moves VLAN tags out of packets, where the program can't see them; safe
    /// only if no tagged frame can arrive [default: false]
    accept_unseen_vlan_tags: bool = "PLGW_ACCEPT_UNSEEN_VLAN_TAGS", "BOOL";
    /// Number of flows of each address family that the flow tables are made for; an IPv4 flow takes 256 bytes
    /// of kernel memory, an IPv6 flow 512 [default: by the machine's memory, at most 1048576]
    flow_table_size: u32 = "PLGW_FLOW_TABLE_SIZE", "N";
    /// Established flows that one endpoint may have while all others have none, in percent of
    /// `flow_table_size`; the more is in use, the less each endpoint gets [default: 80]
    flow_table_share: u32 = "PLGW_FLOW_TABLE_SHARE", "PERCENT";
    /// Interval of flow garbage collection, in seconds [default: 5]
    flow_gc_interval: u64 = "PLGW_FLOW_GC_INTERVAL", "SECONDS";
    /// Maximum number of rejects (TCP resets, ICMP errors) sent for an endpoint a second; 0: no limit
    /// [default: 1000]
    rejects_per_second: u32 = "PLGW_REJECTS_PER_SECOND", "N";
    /// Number of address conflict probes before an endpoint's address is used; 0: none [default: 3]
    address_probes: u32 = "PLGW_ADDRESS_PROBES", "N";
    /// Time between two probes, and after the last one, in milliseconds [default: 200]
    address_probe_interval: u64 = "PLGW_ADDRESS_PROBE_INTERVAL", "MILLISECONDS";
    /// Address and port of the API for tenants, over TLS; unset: tenants have no access
    listen: SocketAddr = "PLGW_LISTEN", "ADDRESS:PORT";
    /// PEM file of the certificate chain for `listen`; read again on SIGHUP
    tls_certificate: PathBuf = "PLGW_TLS_CERTIFICATE", "FILE";
    /// PEM file of the certificate's private key; read again on SIGHUP
    tls_key: PathBuf = "PLGW_TLS_KEY", "FILE";
    /// PEM file of the authorities whose client certificates are accepted; unset: none are accepted
    tls_client_ca: PathBuf = "PLGW_TLS_CLIENT_CA", "FILE";
    /// PEM file of revocation lists for client certificates; read again on SIGHUP; unset: revocation is not
    /// checked
    tls_client_crl: PathBuf = "PLGW_TLS_CLIENT_CRL", "FILE";
    /// OpenID Connect issuers whose tokens are accepted, separated by spaces
    #[arg(long = "oidc-issuer", value_delimiter = ' ')]
    oidc_issuers: Vec<IssuerSettings> = "PLGW_OIDC_ISSUERS", "URL,audience=AUDIENCE";
    /// PEM file of authorities that are trusted in addition to the system's for outbound TLS (issuers and
    /// webhooks)
    outbound_ca: PathBuf = "PLGW_OUTBOUND_CA", "FILE";
    /// Networks that webhooks may be in, in addition to the public internet, separated by spaces; an address
    /// of this host needs an entry of its own [default: none]
    #[arg(long = "webhook-network", value_delimiter = ' ')]
    webhook_networks: Vec<IpNet> = "PLGW_WEBHOOK_NETWORKS", "CIDR";
    /// Number of events that each ring of a tenant's event log keeps; there is one ring for each class of
    /// events and each side that causes them [default: 1000]
    event_retention: usize = "PLGW_EVENT_RETENTION", "N";
    /// Changes a second of each user of a tenant, with bursts of four seconds' worth; 0: no limit
    /// [default: 50]
    changes_per_second: u32 = "PLGW_CHANGES_PER_SECOND", "N";
    /// Other requests a second of each user of a tenant, with bursts of five seconds' worth; 0: no limit
    /// [default: 200]
    reads_per_second: u32 = "PLGW_READS_PER_SECOND", "N";
    /// Changes a second of all users of a tenant together; 0: no limit [default: 100]
    tenant_changes_per_second: u32 = "PLGW_TENANT_CHANGES_PER_SECOND", "N";
    /// Other requests a second of all users of a tenant together; 0: no limit [default: 400]
    tenant_reads_per_second: u32 = "PLGW_TENANT_READS_PER_SECOND", "N";
    /// Requests a second without a valid credential from one IPv4 address or IPv6 /64; 0: no limit
    /// [default: 20]
    unauthenticated_per_second: u32 = "PLGW_UNAUTHENTICATED_PER_SECOND", "N";
    /// Open event streams of each user of a tenant [default: 8]
    streams_per_principal: usize = "PLGW_STREAMS_PER_PRINCIPAL", "N";
    /// Open event streams of all users of a tenant together [default: 32]
    streams_per_tenant: usize = "PLGW_STREAMS_PER_TENANT", "N";
    /// Default quota of networks of a tenant [default: 64]
    quota_networks: u32 = "PLGW_QUOTA_NETWORKS", "N";
    /// Default quota of services of a tenant [default: 256]
    quota_services: u32 = "PLGW_QUOTA_SERVICES", "N";
    /// Default quota of endpoints of a tenant [default: 1024]
    quota_endpoints: u32 = "PLGW_QUOTA_ENDPOINTS", "N";
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_key_is_in_the_manual() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operation.md");
        let manual = fs::read_to_string(path).unwrap();
        let missing: Vec<&&str> = Settings::KEYS
            .iter()
            .filter(|key| !manual.contains(&format!("`{key}`")))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/operation.md has no row for {missing:?}"
        );
    }

    #[test]
    fn environment_variables_are_named_after_their_keys() {
        let command = Settings::augment_args(clap::Command::new("plgw"));
        for argument in command.get_arguments() {
            let expected = format!("PLGW_{}", argument.get_id().as_str().to_uppercase());
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(expected.as_str())
            );
        }
    }
}
