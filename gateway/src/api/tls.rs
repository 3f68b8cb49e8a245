//! The listener for tenants: HTTPS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use axum::Router;
use jiff::Timestamp;
use log::{debug, error, info, warn};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::RwLock,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    api::{
        AppState,
        admission::Admission,
        listener::{
            self, ConnectionRegistry, HEADER_TIMEOUT, ListenerLimits, RegisteredConnection,
            WriteTimeoutStream,
        },
        router,
        source::ClientSource,
    },
    auth::{
        Credential,
        authorities::{ClientAuthorities, ClientTrustStore, read_certificates},
        certificate::{ClientCertificate, validity},
    },
    config::TlsSettings,
    files,
    log_limit::LogLimit,
    model::identity::Authority,
};

/// Bounds of the listener's connections. Authenticated clients hold three quarters of them at most, so that new clients
/// can always connect.
const LIMITS: ListenerLimits = ListenerLimits {
    total: 1_024,
    per_source: 128,
    authenticated: 768,
    authenticated_per_principal: 64,
    authenticated_per_tenant: 128,
    unauthenticated: 512,
    unauthenticated_per_source: 64,
};
/// Time limit of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = HEADER_TIMEOUT;

/// The client of a TLS connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The client's address and port.
    pub(super) address: SocketAddr,
    /// The credential of its client certificate, if it sent one.
    pub(super) credential: Option<Credential>,
    /// The connection's entry in the registry.
    pub(super) registration: Arc<RegisteredConnection>,
}

/// An open listener whose certificate was read.
pub struct Listener {
    listener: TcpListener,
    settings: TlsSettings,
    config: Arc<RwLock<Arc<ServerConfig>>>,
    /// The trusted authorities of client certificates; `None`: clients are not asked for certificates.
    trust: Option<Arc<ClientTrustStore>>,
}

impl Listener {
    /// Returns the authorities whose client certificates are accepted.
    #[must_use]
    pub fn authorities(&self) -> Vec<Authority> {
        let trust = self.trust.as_ref();
        trust.map_or_else(Vec::new, |trust| trust.current().authorities())
    }

    /// Opens the listener.
    ///
    /// # Errors
    /// If the address is in use, or a file of certificates or keys can't be used.
    pub async fn open(settings: &TlsSettings) -> Result<Self> {
        let authorities = client_authorities(settings)?;
        let config = server_config(settings, authorities.as_deref())?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("can't listen on {}", settings.listen))?;
        info!("tls: listening address={}", listener.local_addr()?);
        Ok(Self {
            listener,
            settings: settings.clone(),
            config: Arc::new(RwLock::new(Arc::new(config))),
            trust: authorities.map(|authorities| Arc::new(ClientTrustStore::new(authorities))),
        })
    }
}

/// Serves the API to tenants until the process ends.
pub async fn serve(listener: Listener, agent: AppState, admission: Arc<Admission>) {
    let Listener {
        listener,
        settings,
        config,
        trust,
    } = listener;
    tokio::spawn(reload_on_hangup(
        settings,
        Arc::clone(&config),
        trust.clone(),
        Arc::clone(&agent),
    ));
    let router = router(agent, Arc::clone(&admission));
    let registry = ConnectionRegistry::new(LIMITS);
    let (failures, refusals) = (LogLimit::new(), LogLimit::new());
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The usual cause is a lack of file descriptors: other connections must end first.
                if let Some(more) = failures.admit() {
                    warn!("tls: accept failed error={error}{more}");
                }
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let source = ClientSource::from_address(address.ip());
        let registration = match admission.check_connection(source) {
            true => ConnectionRegistry::register(&registry, source),
            false => None,
        };
        let Some(registration) = registration else {
            if let Some(more) = refusals.admit() {
                warn!(
                    "tls: connection refused peer={} reason=\"connection limit\"{more}",
                    address.ip()
                );
            }
            continue;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&*config.read().await));
        let router = router.clone();
        let trust = trust.clone();
        tokio::spawn(async move {
            if let Err(error) =
                serve_connection(stream, address, &registration, acceptor, router, trust).await
            {
                debug!("tls: connection failed peer={address} error={error:#}");
            }
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    address: SocketAddr,
    registration: &Arc<RegisteredConnection>,
    acceptor: TlsAcceptor,
    router: Router,
    trust: Option<Arc<ClientTrustStore>>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let handshake = timeout(
        HANDSHAKE_TIMEOUT,
        acceptor.accept(WriteTimeoutStream::new(stream)),
    );
    let stream = tokio::select! {
        stream = handshake => stream
            .context("TLS handshake timed out")?
            .context("TLS handshake failed")?,
        () = registration.wait_evicted() => bail!("evicted before the handshake was complete"),
    };
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain
        .zip(trust)
        .and_then(|(chain, trust)| ClientCertificate::new(chain, trust));
    let peer = Peer {
        address,
        credential: certificate.map(|certificate| Credential::Certificate(Arc::new(certificate))),
        registration: Arc::clone(registration),
    };
    listener::serve(stream, registration, router, move |extensions| {
        extensions.insert(peer.clone());
    })
    .await
}

/// Reads the files again on SIGHUP. The new authorities and revocation lists also apply to client certificates of open
/// connections.
async fn reload_on_hangup(
    settings: TlsSettings,
    config: Arc<RwLock<Arc<ServerConfig>>>,
    trust: Option<Arc<ClientTrustStore>>,
    agent: AppState,
) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return error!("tls: SIGHUP handler failed error={error}"),
    };
    while hangups.recv().await.is_some() {
        let read = client_authorities(&settings).and_then(|authorities| {
            let config = server_config(&settings, authorities.as_deref())?;
            Ok((authorities, config))
        });
        match read {
            Ok((authorities, new)) => {
                *config.write().await = Arc::new(new);
                if let Some((trust, authorities)) = trust.as_ref().zip(authorities) {
                    agent
                        .controller
                        .lock()
                        .await
                        .set_authorities(authorities.authorities());
                    trust.replace(authorities);
                }
                info!("tls: certificate and key reloaded");
            }
            Err(error) => error!("tls: reload failed, keeping the old certificate error={error:#}"),
        }
    }
}

/// Checks the files of the listener without opening it. Returns the validity of the certificate: its first and its last
/// moment.
///
/// # Errors
/// All problems that were found: with the certificate and the key, and with the authorities of clients.
pub fn check(settings: &TlsSettings) -> Result<(Timestamp, Timestamp), Vec<anyhow::Error>> {
    let authorities = settings.client_ca.as_ref().map(|path| {
        ClientAuthorities::read(path, settings.client_crl.as_deref()).context("tls_client_ca")
    });
    let server = server_config(settings, None).and_then(|_| {
        let certificates = read_certificates(&settings.certificate)?;
        let first = certificates.first().context("no certificate")?;
        validity(first)
            .with_context(|| format!("{} can't be parsed", settings.certificate.display()))
    });
    match (server, authorities) {
        (Ok(validity), None | Some(Ok(_))) => Ok(validity),
        (server, authorities) => {
            let server = server.err().into_iter();
            Err(server.chain(authorities.and_then(Result::err)).collect())
        }
    }
}

fn client_authorities(settings: &TlsSettings) -> Result<Option<Arc<ClientAuthorities>>> {
    let Some(path) = &settings.client_ca else {
        return Ok(None);
    };
    let authorities = ClientAuthorities::read(path, settings.client_crl.as_deref())?;
    authorities.log_anchors();
    Ok(Some(Arc::new(authorities)))
}

fn server_config(
    settings: &TlsSettings,
    authorities: Option<&ClientAuthorities>,
) -> Result<ServerConfig> {
    let certificates = read_certificates(&settings.certificate)?;
    let shown = settings.key.display();
    files::check_key(&settings.key)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .with_context(|| format!("can't read the private key {shown}: it must be a PEM file"))?;
    let builder = ServerConfig::builder();
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => builder.with_client_cert_verifier(authorities.verifier()),
    };
    builder
        .with_single_cert(certificates, key)
        .with_context(|| {
            let certificate = settings.certificate.display();
            format!("certificate {certificate} and key {shown} do not match: use the key of the certificate")
        })
}
