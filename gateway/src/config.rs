//! The agent's configuration: a TOML file. Every key is also a flag and an environment variable.
//!
//! Flags override environment variables, variables override the file, and the file overrides the defaults.

mod api_limits;
mod effective;
mod flow_table;
mod probe;
mod settings;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;

use crate::{
    auth::{authorities::ClientAuthorities, oidc::IssuerSettings},
    former_paths,
    model::operations::{DefaultQuotas, Policy},
};

pub use self::{api_limits::ApiLimits, probe::ProbeConfig, settings::Settings};

/// Path of the configuration file if `--config` is not set.
pub const DEFAULT_FILE: &str = "/etc/plgw/plgw.toml";

/// Name of the control socket in the run directory.
pub const SOCKET_FILE: &str = "plgw.sock";

/// Path of the control socket if `run_dir` is not set.
pub const DEFAULT_SOCKET: &str = "/run/plgw/plgw.sock";

/// The effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory of the store.
    pub state_dir: PathBuf,
    /// Directory of the control socket.
    pub run_dir: PathBuf,
    /// Directory of the pinned program and maps.
    pub bpf_dir: PathBuf,
    /// Group that may use the control socket.
    pub socket_group: String,
    /// Log level.
    pub log: log::LevelFilter,
    /// True if each dropped packet is logged.
    pub log_packets: bool,
    /// True if flows in an incompatible map layout may be discarded.
    pub discard_incompatible_flows: bool,
    /// True if interfaces are attached whose driver moves VLAN tags out of packets.
    pub accept_unseen_vlan_tags: bool,
    /// Interval of flow garbage collection, in seconds.
    pub flow_gc_interval: u64,
    /// Number of flows that each flow table is made for.
    pub flow_table_size: u32,
    /// Established flows that one endpoint may have while all others have none, in percent.
    pub flow_table_share: u32,
    /// Maximum number of rejects sent for an endpoint a second; 0: no limit.
    pub rejects_per_second: u32,
    /// Number and interval of address conflict probes.
    pub probing: ProbeConfig,
    /// The listener for tenants; `None`: tenants have no access.
    pub tls: Option<TlsSettings>,
    /// Trusted OpenID Connect issuers.
    pub oidc_issuers: Vec<IssuerSettings>,
    /// PEM file of authorities that are trusted in addition to the system's for outbound TLS.
    pub outbound_ca: Option<PathBuf>,
    /// Networks that webhooks may be in, in addition to the public internet.
    pub webhook_networks: Vec<IpNet>,
    /// Number of events that each ring of a tenant's event log keeps.
    pub event_retention: usize,
    /// Limits of callers of the API.
    pub api_limits: ApiLimits,
    /// Parameters of the model's operations.
    pub policy: Policy,
}

/// The listener for tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// PEM file of the certificate chain.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
    /// PEM file of the authorities whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
    /// PEM file of the revocation lists for client certificates.
    pub client_crl: Option<PathBuf>,
}

impl Config {
    /// Reads the file, which may be missing if it is the default one, and overrides its keys by the flags.
    ///
    /// # Errors
    /// If the file can't be read, has an unknown key, or a value is out of range.
    pub fn load(file: Option<&Path>, flags: Settings) -> Result<Self> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                former_paths::check_config()?;
                String::new()
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("can't read the configuration {}", path.display()));
            }
        };
        let file: Settings = toml::from_str(&text)
            .with_context(|| format!("the configuration {} is wrong", path.display()))?;
        Self::from_settings(flags.with_fallback(file))
    }

    fn from_settings(settings: Settings) -> Result<Self> {
        let directory = |given: Option<PathBuf>, default: &str| -> Result<PathBuf> {
            let path = given.unwrap_or_else(|| default.into());
            if path.is_absolute() {
                Ok(path)
            } else {
                bail!(
                    "directory {} is relative: give an absolute path",
                    path.display()
                )
            }
        };
        let api_limits = ApiLimits::from_settings(&settings);
        let defaults = Policy::default();
        let alias_domain = settings.alias_domain.unwrap_or(defaults.alias_domain);
        check_domain(&alias_domain)?;
        let flow_gc_interval = settings.flow_gc_interval.unwrap_or(5);
        if !(1..=3_600).contains(&flow_gc_interval) {
            bail!("flow_gc_interval is {flow_gc_interval}: it must be 1 to 3600 seconds");
        }
        let flow_table_size = match settings.flow_table_size {
            Some(size) => size,
            None => flow_table::default_size(flow_table::total_memory()?),
        };
        flow_table::check_size(flow_table_size)?;
        let flow_table_share = settings.flow_table_share.unwrap_or(80);
        if !(1..=95).contains(&flow_table_share) {
            bail!("flow_table_share is {flow_table_share}: it must be 1 to 95 percent");
        }
        let probes = settings.address_probes.unwrap_or(3);
        if probes > 100 {
            bail!("address_probes is {probes}: it must be at most 100");
        }
        let probe_interval = settings.address_probe_interval.unwrap_or(200);
        if !(10..=10_000).contains(&probe_interval) {
            bail!(
                "address_probe_interval is {probe_interval}: it must be 10 to 10000 milliseconds"
            );
        }
        if settings.tls_client_crl.is_some() && settings.tls_client_ca.is_none() {
            bail!("tls_client_crl has no effect without tls_client_ca: set both");
        }
        let tls = match (settings.listen, settings.tls_certificate, settings.tls_key) {
            (None, ..) => None,
            (Some(listen), Some(certificate), Some(key)) => Some(TlsSettings {
                listen,
                certificate,
                key,
                client_ca: settings.tls_client_ca,
                client_crl: settings.tls_client_crl,
            }),
            (Some(_), ..) => {
                bail!(
                    "listen needs tls_certificate and tls_key, since tenants use TLS only: set both"
                )
            }
        };
        let event_retention = settings.event_retention.unwrap_or(1_000);
        if !(100..=100_000).contains(&event_retention) {
            bail!("event_retention is {event_retention}: it must be 100 to 100000");
        }
        let oidc_issuers = settings.oidc_issuers.unwrap_or_default();
        let DefaultQuotas {
            networks,
            services,
            endpoints,
        } = defaults.default_quotas;
        Ok(Self {
            state_dir: directory(settings.state_dir, "/var/lib/plgw")?,
            run_dir: directory(settings.run_dir, "/run/plgw")?,
            bpf_dir: directory(settings.bpf_dir, "/sys/fs/bpf/plgw")?,
            socket_group: settings.socket_group.unwrap_or_else(|| "plgw".to_owned()),
            log: settings.log.unwrap_or(log::LevelFilter::Info),
            log_packets: settings.log_packets.unwrap_or(false),
            discard_incompatible_flows: settings.discard_incompatible_flows.unwrap_or(false),
            accept_unseen_vlan_tags: settings.accept_unseen_vlan_tags.unwrap_or(false),
            flow_gc_interval,
            flow_table_size,
            flow_table_share,
            probing: ProbeConfig {
                probes,
                interval: Duration::from_millis(probe_interval),
            },
            rejects_per_second: settings.rejects_per_second.unwrap_or(1_000),
            tls,
            outbound_ca: settings.outbound_ca,
            webhook_networks: settings.webhook_networks.unwrap_or_default(),
            event_retention,
            api_limits,
            policy: Policy {
                alias_domain,
                default_quotas: DefaultQuotas {
                    networks: settings.quota_networks.unwrap_or(networks),
                    services: settings.quota_services.unwrap_or(services),
                    endpoints: settings.quota_endpoints.unwrap_or(endpoints),
                },
                issuers: oidc_issuers.iter().map(|i| i.url.clone()).collect(),
                // The listener reads them from the file when it opens.
                authorities: Vec::new(),
                max_connections: defaults.max_connections,
            },
            oidc_issuers,
        })
    }

    /// Reads the authorities whose client certificates are accepted, if `tls_client_ca` is set.
    ///
    /// # Errors
    /// If a file can't be read, or holds anything else.
    pub fn client_authorities(&self) -> Result<Option<ClientAuthorities>> {
        let tls = self.tls.as_ref();
        let Some((path, lists)) =
            tls.and_then(|tls| Some((tls.client_ca.as_ref()?, tls.client_crl.as_deref())))
        else {
            return Ok(None);
        };
        ClientAuthorities::read(path, lists).map(Some)
    }

    /// Returns the path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join(SOCKET_FILE)
    }
}

/// Checks that the domain is a DNS name (RFC 1123), short enough for an alias's name and random part before it.
fn check_domain(domain: &str) -> Result<()> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if domain.len() <= 150 && domain.split('.').all(label) {
        return Ok(());
    }
    bail!(
        "alias_domain {domain:?} is invalid: it must be a domain name in lower case of at most 150 characters"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: Settings) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plgw.toml");
        fs::write(&path, text).unwrap();
        Config::load(Some(&path), flags)
    }

    #[test]
    fn flags_override_the_file_and_the_file_overrides_defaults() {
        let flags = Settings {
            quota_networks: Some(3),
            ..Settings::default()
        };
        let config = load(
            "quota_networks = 2\nquota_services = 7\nlog = \"warn\"",
            flags,
        )
        .unwrap();
        assert_eq!(config.policy.default_quotas.networks, 3);
        assert_eq!(config.policy.default_quotas.services, 7);
        assert_eq!(config.policy.default_quotas.endpoints, 1_024);
        assert_eq!(config.log, log::LevelFilter::Warn);
        assert_eq!(config.socket(), Path::new(DEFAULT_SOCKET));
    }

    #[test]
    fn invalid_files_are_refused() {
        for (text, says) in [
            ("stat_dir = '/x'", "unknown field `stat_dir`"),
            ("state_dir = 'x'", "absolute path"),
            ("log = 'loud'", "line 1"),
            ("alias_domain = 'a b'", "alias_domain"),
            ("flow_gc_interval = 0", "1 to 3600"),
        ] {
            let refusal = format!("{:#}", load(text, Settings::default()).unwrap_err());
            assert!(refusal.contains(says), "{text}: {refusal}");
        }
        let missing = Config::load(Some(Path::new("/nowhere.toml")), Settings::default());
        assert!(missing.unwrap_err().to_string().contains("/nowhere.toml"));
    }
}
