//! Permitted destinations of webhooks, by URL and by resolved address.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{
    model::{self, webhook::is_permitted_port},
    outbound::{
        destination::is_permitted, dns::BoundedResolver, interface_addresses::InterfaceAddresses,
    },
};

tokio::task_local! {
    /// Tenant whose webhook the current task calls. The resolver needs it, but its interface passes only a host name.
    pub(super) static TENANT: model::Name;
}

/// Refuses a URL with a forbidden port or literal address. Names are checked when they are resolved.
pub(super) fn check_destination(url: &reqwest::Url, networks: &[IpNet]) -> Result<(), String> {
    let port = url.port_or_known_default().unwrap_or(0);
    if !is_permitted_port(port) {
        return Err(format!("webhooks may not use port {port}"));
    }
    let literal = url.host_str().unwrap_or_default();
    let literal = literal.trim_start_matches('[').trim_end_matches(']');
    let Ok(address) = literal.parse() else {
        return Ok(());
    };
    let own = InterfaceAddresses::read().map_err(|error| error.to_string())?;
    if is_permitted(address, own.contains(address), networks) {
        return Ok(());
    }
    Err(forbidden_destination(&[address]))
}

fn forbidden_destination(addresses: &[IpAddr]) -> String {
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!(
        "no webhook may be at {}: allow the network with webhook_networks, an address of this host by itself",
        shown.join(", ")
    )
}

/// Resolver that returns only permitted addresses. The connection goes to one of these, so a name whose addresses
/// change between check and connection (DNS rebinding) gains nothing.
pub(super) struct PermittedResolver {
    networks: Arc<[IpNet]>,
    lookups: Arc<BoundedResolver>,
}

impl PermittedResolver {
    /// Returns a resolver for public addresses and those in `networks`.
    pub(super) fn new(networks: &Arc<[IpNet]>) -> Self {
        Self {
            networks: Arc::clone(networks),
            lookups: Arc::default(),
        }
    }
}

impl Resolve for PermittedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = Arc::clone(&self.networks);
        let lookups = Arc::clone(&self.lookups);
        let tenant = TENANT.try_with(Clone::clone).ok();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let resolved = lookups.resolve(tenant.as_ref(), host).await?;
            let own = InterfaceAddresses::read()?;
            let permitted = |address: &&SocketAddr| {
                let address = address.ip();
                is_permitted(address, own.contains(address), &networks)
            };
            let allowed: Vec<SocketAddr> = resolved.iter().filter(permitted).copied().collect();
            if allowed.is_empty() {
                let addresses: Vec<IpAddr> = resolved.iter().map(SocketAddr::ip).collect();
                return Err(forbidden_destination(&addresses).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_and_ports_are_checked_in_every_notation() {
        let refused = |url: &str| {
            let url = reqwest::Url::parse(url).unwrap();
            check_destination(&url, &[]).is_err()
        };
        for url in [
            "https://127.0.0.1/",
            "https://127.0.0.1./",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://10.0.0.1:8443/",
            "https://8.8.8.8:22/",
            "http://8.8.8.8:25/",
        ] {
            assert!(refused(url), "{url}");
        }
        for url in [
            "https://8.8.8.8/",
            "http://8.8.8.8:8080/",
            "https://name.example/",
        ] {
            assert!(!refused(url), "{url}");
        }
    }

    /// Resolver that records the tenants of its requests, and finds no address.
    struct RecordingResolver(std::sync::Mutex<Vec<Option<model::Name>>>);

    impl Resolve for RecordingResolver {
        fn resolve(&self, _: Name) -> Resolving {
            let tenant = TENANT.try_with(Clone::clone).ok();
            self.0.lock().unwrap().push(tenant);
            Box::pin(async { Err("no such name".into()) })
        }
    }

    #[tokio::test]
    async fn resolver_sees_the_tenant_of_the_webhook() {
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resolver = Arc::new(RecordingResolver(std::sync::Mutex::default()));
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::clone(&resolver))
            .build()
            .unwrap();
        let tenant: model::Name = "a".parse().unwrap();
        let sending = client.post("http://receiver.example/").send();
        assert!(TENANT.scope(tenant.clone(), sending).await.is_err());
        assert_eq!(*resolver.0.lock().unwrap(), [Some(tenant)]);
    }
}
