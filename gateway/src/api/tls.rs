//! The listener for tenants: TLS on TCP.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{debug, error, info, warn};
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{RwLock, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{
    api::{Shared, router},
    auth::{Credential, certificate},
    config::TlsSettings,
    files,
};

/// How long a client may take for the handshake, and for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at the same time; more wait until some have ended.
const MOST_CONNECTIONS: usize = 1_024;
/// Of these, from one address: nobody takes all of them.
const MOST_FROM_ONE: usize = 128;

/// Who is at the other end of a TLS connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// From where.
    pub(super) address: SocketAddr,
    /// What its certificate says, if it has one.
    pub(super) credential: Option<Credential>,
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
pub async fn serve(listener: Listener, agent: Shared) {
    let Listener {
        listener,
        settings,
        config,
    } = listener;
    tokio::spawn(reload(settings, Arc::clone(&config)));
    let router = router(agent);
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let places = Places::default();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                warn!("could not accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = Place::take(&places, address.ip()) else {
            debug!("{address}: it has {MOST_FROM_ONE} connections already");
            continue;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&*config.read().await));
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = talk(stream, address, acceptor, router).await {
                debug!("{address}: {error:#}");
            }
            drop((permit, place));
        });
    }
}

/// How many connections there are from each address.
type Places = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of the connections that an address may have; given back when dropped.
struct Place {
    places: Places,
    address: IpAddr,
}

impl Place {
    fn take(places: &Places, address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        let mut counts = places.lock().ok()?;
        let count = counts.entry(address).or_default();
        if *count >= MOST_FROM_ONE {
            return None;
        }
        *count += 1;
        Some(Self {
            places: Arc::clone(places),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(mut counts) = self.places.lock()
            && let Some(count) = counts.get_mut(&self.address)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn talk(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(PATIENCE, acceptor.accept(stream))
        .await
        .context("the handshake took too long")?
        .context("the handshake failed")?;
    let certificates = stream.get_ref().1.peer_certificates();
    let first = certificates.and_then(<[_]>::first);
    let peer = Peer {
        address,
        credential: first.and_then(|first| certificate::credential(first)),
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .context("the connection failed")
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
