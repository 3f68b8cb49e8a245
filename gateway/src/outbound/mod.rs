//! Calls that leave the host: to webhooks and to OpenID Connect issuers.

pub mod destination;
pub mod dns;
pub mod interface_addresses;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

/// Time that one call may take, from the look-up of the name to the head of the answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns an HTTP client that trusts the system's certificate authorities, and those in the file.
///
/// The client ignores the proxies that the environment names: a proxy would connect in the gateway's place, so that
/// no check of the address would hold. It follows no redirects, and keeps no connection for a later call, so that
/// every call has its address checked.
///
/// # Errors
/// When the file can't be read, or there are no authorities at all.
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
            "nobody outside can be called: install the system's certificate authorities, or name \
             some with outbound_ca",
        );
    };
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("could not read {shown}"))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&text)
        .with_context(|| format!("{shown} holds no certificates"))?;
    // A system without authorities of its own refuses the merge; then those of the file are all there are.
    builder()
        .tls_certs_merge(certificates.clone())
        .build()
        .or_else(|_| builder().tls_certs_only(certificates).build())
        .with_context(|| format!("{shown} can't be used"))
}
