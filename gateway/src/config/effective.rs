//! The effective configuration as settings, which can be printed and read again.

use super::{ApiLimits, Config, Settings};
use crate::model::operations::DefaultQuotas;

impl Config {
    /// Returns the settings that have this configuration as their effect: all keys, but for those that have no value.
    /// None of them is a secret: keys and tokens are in files, which the settings name.
    #[must_use]
    pub fn to_settings(&self) -> Settings {
        let tls = self.tls.as_ref();
        let ApiLimits {
            changes_per_second,
            reads_per_second,
            tenant_changes_per_second,
            tenant_reads_per_second,
            unauthenticated_per_second,
            streams_per_principal,
            streams_per_tenant,
        } = self.api_limits;
        let DefaultQuotas {
            networks,
            services,
            endpoints,
        } = self.policy.default_quotas;
        let interval = self.probing.interval.as_millis();
        Settings {
            state_dir: Some(self.state_dir.clone()),
            run_dir: Some(self.run_dir.clone()),
            bpf_dir: Some(self.bpf_dir.clone()),
            socket_group: Some(self.socket_group.clone()),
            alias_domain: Some(self.policy.alias_domain.clone()),
            log: Some(self.log),
            log_packets: Some(self.log_packets),
            discard_incompatible_flows: Some(self.discard_incompatible_flows),
            accept_unseen_vlan_tags: Some(self.accept_unseen_vlan_tags),
            flow_table_size: Some(self.flow_table_size),
            flow_table_share: Some(self.flow_table_share),
            flow_gc_interval: Some(self.flow_gc_interval),
            rejects_per_second: Some(self.rejects_per_second),
            address_probes: Some(self.probing.probes),
            address_probe_interval: u64::try_from(interval).ok(),
            listen: tls.map(|tls| tls.listen),
            tls_certificate: tls.map(|tls| tls.certificate.clone()),
            tls_key: tls.map(|tls| tls.key.clone()),
            tls_client_ca: tls.and_then(|tls| tls.client_ca.clone()),
            tls_client_crl: tls.and_then(|tls| tls.client_crl.clone()),
            oidc_issuers: Some(self.oidc_issuers.clone()),
            outbound_ca: self.outbound_ca.clone(),
            webhook_networks: Some(self.webhook_networks.clone()),
            event_retention: Some(self.event_retention),
            changes_per_second: Some(changes_per_second),
            reads_per_second: Some(reads_per_second),
            tenant_changes_per_second: Some(tenant_changes_per_second),
            tenant_reads_per_second: Some(tenant_reads_per_second),
            unauthenticated_per_second: Some(unauthenticated_per_second),
            streams_per_principal: Some(streams_per_principal),
            streams_per_tenant: Some(streams_per_tenant),
            quota_networks: Some(networks),
            quota_services: Some(services),
            quota_endpoints: Some(endpoints),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn printed_settings_have_the_same_effect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plgw.toml");
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Config::load(Some(&path), Settings::default()).unwrap()
        };
        for text in [
            "",
            "listen = '[::]:8443'\ntls_certificate = '/c'\ntls_key = '/k'\ntls_client_ca = '/a'\n\
             tls_client_crl = '/l'\noutbound_ca = '/o'\nlog = 'warn'\nflow_table_size = 2048\n\
             address_probe_interval = 50\noidc_issuers = ['https://idp.example,audience=x']\n\
             webhook_networks = ['10.0.0.0/8']\nquota_networks = 3\nstreams_per_tenant = 5\n\
             reads_per_second = 0\nlog_packets = true\naccept_unseen_vlan_tags = true\n\
             discard_incompatible_flows = true\nalias_domain = 'x.example'\nsocket_group = 'g'\n\
             state_dir = '/s'\nrun_dir = '/r'\nbpf_dir = '/b'\nevent_retention = 200",
        ] {
            let config = load(text);
            let printed = toml::to_string(&config.to_settings()).unwrap();
            assert_eq!(load(&printed), config, "{printed}");
        }
    }
}
