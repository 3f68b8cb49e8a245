//! Outbound HTTPS calls: to webhooks and to OpenID Connect issuers.

pub mod destination;
pub mod dns;
pub mod interface_addresses;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

/// Timeout of one call, from the name look-up to the header of the response.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns an HTTP client that trusts the system's certificate authorities and those in the file.
///
/// The client ignores the proxies that the environment names, because a proxy would connect in the gateway's place and
/// the check of the address would have no effect. The client follows no redirects and keeps no connection for a later
/// call, so that the address of every call is checked.
///
/// # Errors
/// Fails if the file can't be read, or if no certificate authority is known.
pub fn client(
    authorities: Option<&Path>,
    configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client> {
    let builder = || {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .user_agent(concat!("plgw/", env!("CARGO_PKG_VERSION")));
        configure(builder)
    };
    let Some(path) = authorities else {
        return builder().build().context(
            "no trusted certificate authorities for outbound TLS: install the system's CA certificates, or set \
             outbound_ca",
        );
    };
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("could not read {shown}"))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&text)
        .with_context(|| format!("{shown} holds no PEM certificates"))?;
    // The merge fails on a system without certificate authorities. The file's authorities are then the only ones.
    builder()
        .tls_certs_merge(certificates.clone())
        .build()
        .or_else(|_| builder().tls_certs_only(certificates).build())
        .with_context(|| format!("could not use the certificates in {shown}"))
}
