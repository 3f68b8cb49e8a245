//! The listener for tenants: TLS on TCP.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use axum::Router;
use log::{debug, error, info, warn};
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::RwLock,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    api::{
        Shared,
        admission::Admission,
        listener::{self, HEAD_PATIENCE, Limits, Registry, Seat, Timed},
        router,
        source::Source,
    },
    auth::{Credential, certificate},
    config::TlsSettings,
    files,
    log_limit::LogLimit,
};

/// Bounds of the listener's connections. Half of the places are for clients that have authenticated.
const LIMITS: Limits = Limits {
    all: 1_024,
    of_source: 128,
    unauthenticated: 512,
    unauthenticated_of_source: 64,
};
/// How long a client may take for the handshake.
const HANDSHAKE_PATIENCE: Duration = HEAD_PATIENCE;

/// The client of a TLS connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: SocketAddr,
    /// The content of its certificate, if it has one.
    pub(super) credential: Option<Credential>,
    /// The connection's place.
    pub(super) seat: Arc<Seat>,
}

/// The listener, open and with its certificate read.
pub struct Listener {
    listener: TcpListener,
    settings: TlsSettings,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Listener {
    /// Opens it.
    ///
    /// # Errors
    /// When the address is taken, or the files are not what they should be.
    pub async fn open(settings: &TlsSettings) -> Result<Self> {
        let config = server_config(settings)?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("could not listen on {}", settings.listen))?;
        info!("tenants are served on https://{}", listener.local_addr()?);
        Ok(Self {
            listener,
            settings: settings.clone(),
            config: Arc::new(RwLock::new(Arc::new(config))),
        })
    }
}

/// Serves the API to tenants, until the process ends.
pub async fn serve(listener: Listener, agent: Shared, admission: Arc<Admission>) {
    let Listener {
        listener,
        settings,
        config,
    } = listener;
    tokio::spawn(reload(settings, Arc::clone(&config)));
    let router = router(agent, Arc::clone(&admission));
    let registry = Registry::new(LIMITS);
    let (failures, refusals) = (LogLimit::new(), LogLimit::new());
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                if let Some(more) = failures.admit() {
                    warn!("tls: could not accept a connection error={error}{more}");
                }
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let source = Source::of_address(address.ip());
        let seat = match admission.connection(source) {
            true => Registry::admit(&registry, source),
            false => None,
        };
        let Some(seat) = seat else {
            if let Some(more) = refusals.admit() {
                warn!(
                    "tls: refused a connection beyond the limits peer={}{more}",
                    address.ip()
                );
            }
            continue;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&*config.read().await));
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = talk(stream, address, &seat, acceptor, router).await {
                debug!("{address}: {error:#}");
            }
        });
    }
}

async fn talk(
    stream: TcpStream,
    address: SocketAddr,
    seat: &Arc<Seat>,
    acceptor: TlsAcceptor,
    router: Router,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let handshake = timeout(HANDSHAKE_PATIENCE, acceptor.accept(Timed::new(stream)));
    let stream = tokio::select! {
        stream = handshake => stream
            .context("the handshake took too long")?
            .context("the handshake failed")?,
        () = seat.evicted() => bail!("its place was needed: it did not finish its handshake"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let first = certificates.and_then(<[_]>::first);
    let peer = Peer {
        address,
        credential: first.and_then(|first| certificate::credential(first)),
        seat: Arc::clone(seat),
    };
    listener::serve(stream, seat, router, move |extensions| {
        extensions.insert(peer.clone());
    })
    .await
}

/// Reads the files again when the process is told to.
async fn reload(settings: TlsSettings, config: Arc<RwLock<Arc<ServerConfig>>>) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return error!("certificates can't be read again on SIGHUP: {error}"),
    };
    while hangups.recv().await.is_some() {
        match server_config(&settings) {
            Ok(new) => {
                *config.write().await = Arc::new(new);
                info!("certificate and key were read again");
            }
            Err(error) => error!("the old certificate stays in use: {error:#}"),
        }
    }
}

fn server_config(settings: &TlsSettings) -> Result<ServerConfig> {
    let certificates = read_certificates(&settings.certificate)?;
    let shown = settings.key.display();
    files::check_key(&settings.key)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .with_context(|| format!("could not read the private key {shown}"))?;
    let builder = ServerConfig::builder();
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
    };
    builder
        .with_single_cert(certificates, key)
        .with_context(|| {
            let certificate = settings.certificate.display();
            format!("certificate {certificate} and key {shown} do not belong together")
        })
}

/// Certificates are accepted, not demanded: others come with a token.
fn client_verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("{} holds no authority's certificate", path.display()))?;
    }
    WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .with_context(|| format!("{} can't be used", path.display()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("could not read {shown}"))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{shown} is no PEM file of certificates"))?;
    if certificates.is_empty() {
        bail!("{shown} holds no certificate");
    }
    Ok(certificates)
}
