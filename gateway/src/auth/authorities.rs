//! Certificate authorities whose client certificates are accepted, and their revocation lists.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use log::{info, warn};
use ring::digest::{SHA256, digest};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject as _,
};
use x509_parser::{
    certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer as _,
    revocation_list::CertificateRevocationList,
};

use crate::{
    auth::{certificate::hexadecimal, display::sanitized},
    model::identity::Authority,
};

/// Longest subject of an authority, in characters.
const MAX_SUBJECT: usize = 400;

/// Returns the authority of a certificate.
///
/// # Errors
/// When the certificate can't be read.
pub fn authority_from_certificate(certificate: &CertificateDer<'_>) -> Result<Authority> {
    let (_, parsed) = X509Certificate::from_der(certificate)?;
    let key = digest(&SHA256, parsed.public_key().raw);
    Ok(Authority {
        subject: sanitized(&parsed.subject().to_string(), MAX_SUBJECT),
        key_sha256: hexadecimal(key.as_ref()),
    })
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// When the file can't be read, is no PEM file, or holds no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
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

fn read_revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("could not read {shown}"))?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{shown} is no PEM file of certificate revocation lists"))?;
    if lists.is_empty() {
        bail!("{shown} holds no certificate revocation list");
    }
    Ok(lists)
}

/// Trust anchor: one certificate of the file of authorities.
#[derive(Debug)]
pub struct TrustAnchor {
    authority: Authority,
    /// Seconds since 1970 from which, and until which, the anchor's certificate is valid.
    validity: (i64, i64),
    is_constrained: bool,
    has_revocation_list: bool,
    /// Verifies against this anchor alone.
    verifier: Arc<dyn ClientCertVerifier>,
}

impl TrustAnchor {
    fn new(
        certificate: CertificateDer<'static>,
        lists: &[CertificateRevocationListDer<'static>],
    ) -> Result<Self> {
        let authority = authority_from_certificate(&certificate)?;
        let (_, parsed) = X509Certificate::from_der(&certificate)?;
        let validity = parsed.validity();
        let validity = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let is_constrained = parsed.extensions().iter().any(|extension| {
            matches!(
                extension.parsed_extension(),
                ParsedExtension::NameConstraints(_)
            )
        });
        let has_list = lists.iter().any(|list| {
            CertificateRevocationList::from_der(list)
                .is_ok_and(|(_, list)| list.issuer().as_raw() == parsed.subject().as_raw())
        });
        Ok(Self {
            authority,
            validity,
            is_constrained,
            has_revocation_list: has_list,
            verifier: build_verifier(std::slice::from_ref(&certificate), lists)?,
        })
    }

    /// Returns the authority.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns whether the anchor restricts the names of the certificates below it.
    #[must_use]
    pub const fn is_constrained(&self) -> bool {
        self.is_constrained
    }

    /// Returns whether a revocation list of the authority itself is there.
    #[must_use]
    pub const fn has_revocation_list(&self) -> bool {
        self.has_revocation_list
    }

    /// Returns the end of the validity of the anchor's certificate.
    #[must_use]
    pub fn valid_until(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.validity.1).ok()
    }

    /// Returns whether the chain leads to this anchor, at this time. RFC 5280, section 6.1, leaves the validity of
    /// anchors to the relying party: an expired one verifies nothing.
    fn verifies(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        let seconds = now.as_second();
        let [certificate, intermediates @ ..] = chain else {
            return false;
        };
        let Ok(since) = u64::try_from(seconds) else {
            return false;
        };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(since));
        (self.validity.0..=self.validity.1).contains(&seconds)
            && self
                .verifier
                .verify_client_cert(certificate, intermediates, time)
                .is_ok()
    }
}

/// Returns a verifier of client certificates, which are accepted but not demanded: others come with a token.
///
/// Certificates of an authority whose revocation list is not in the file are not looked for in any. A list that is
/// past its next update (RFC 5280, section 5.1.2.5) makes all certificates of its authority be refused.
fn build_verifier(
    certificates: &[CertificateDer<'static>],
    lists: &[CertificateRevocationListDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .context("a certificate is no authority's")?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .with_crls(lists.iter().cloned())
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration()
        .allow_unauthenticated()
        .build()?;
    Ok(Arc::new(ChainLengthVerifier(verifier)))
}

/// Intermediate certificates that a client may send. Path building tries them in every order, so a client
/// that sends many of its own making would occupy a processor for seconds.
const MAX_INTERMEDIATES: usize = 3;

/// Verifier that refuses long chains before it builds a path.
#[derive(Debug)]
struct ChainLengthVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ChainLengthVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(rustls::CertificateError::ApplicationVerificationFailure.into());
        }
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// All authorities whose client certificates are accepted.
#[derive(Debug)]
pub struct ClientAuthorities {
    /// Different for different contents that were read by this process.
    generation: u64,
    anchors: Vec<TrustAnchor>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientAuthorities {
    /// Reads the PEM files of authorities and revocation lists.
    ///
    /// # Errors
    /// When a file can't be read, or holds something else.
    pub fn read(authorities: &Path, lists: Option<&Path>) -> Result<Self> {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let certificates = read_certificates(authorities)?;
        let lists = lists
            .map(read_revocation_lists)
            .transpose()?
            .unwrap_or_default();
        let shown = authorities.display();
        let anchors = certificates.iter().map(|certificate| {
            TrustAnchor::new(certificate.clone(), &lists)
                .with_context(|| format!("{shown} holds no authority's certificate"))
        });
        Ok(Self {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            anchors: anchors.collect::<Result<_>>()?,
            verifier: build_verifier(&certificates, &lists)
                .with_context(|| format!("{shown} can't be used"))?,
        })
    }

    /// Returns the number of this reading of the files.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the trust anchors, in the file's order.
    #[must_use]
    pub fn anchors(&self) -> &[TrustAnchor] {
        &self.anchors
    }

    /// Returns the authorities, each once.
    #[must_use]
    pub fn authorities(&self) -> Vec<Authority> {
        let mut authorities: Vec<Authority> = Vec::new();
        for anchor in &self.anchors {
            if !authorities.contains(&anchor.authority) {
                authorities.push(anchor.authority.clone());
            }
        }
        authorities
    }

    /// Returns the verifier for handshakes, which accepts what any of the anchors verifies.
    #[must_use]
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// Returns the anchors that the chain leads to, each authority once. A certificate that several authorities have
    /// signed the issuer of leads to each of them.
    #[must_use]
    pub fn anchors_for_chain(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Vec<&TrustAnchor> {
        let mut found: Vec<&TrustAnchor> = Vec::new();
        for anchor in &self.anchors {
            let is_new = !found
                .iter()
                .any(|other| other.authority == anchor.authority);
            if is_new && anchor.verifies(chain, now) {
                found.push(anchor);
            }
        }
        found
    }

    /// Logs which authorities are accepted.
    pub fn log_anchors(&self) {
        let now = Timestamp::now();
        for anchor in &self.anchors {
            let Authority {
                subject,
                key_sha256,
            } = &anchor.authority;
            let until = anchor.valid_until();
            let shown = until.map(|until| until.to_string()).unwrap_or_default();
            let revocation = if anchor.has_revocation_list {
                "checked"
            } else {
                "unchecked"
            };
            info!(
                "client authority: accepted subject={subject:?} key_sha256={key_sha256} \
                 valid_until={shown} revocation={revocation}"
            );
            if until.is_none_or(|until| until <= now) {
                warn!(
                    "client authority: expired subject={subject:?} key_sha256={key_sha256}: its \
                     certificates are refused until tls_client_ca has a renewed one"
                );
            }
        }
    }
}

/// The authorities that are accepted now. Replaced when the files are read again.
#[derive(Debug)]
pub struct ClientTrustStore(RwLock<Arc<ClientAuthorities>>);

impl ClientTrustStore {
    /// Begins with these authorities.
    #[must_use]
    pub fn new(authorities: Arc<ClientAuthorities>) -> Self {
        Self(RwLock::new(authorities))
    }

    /// Returns the authorities that are accepted now.
    #[must_use]
    pub fn current(&self) -> Arc<ClientAuthorities> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other authorities in place.
    pub fn replace(&self, authorities: Arc<ClientAuthorities>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = authorities;
    }
}

#[cfg(test)]
mod tests;
