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

/// Maximum length of an authority's subject, in characters.
const MAX_SUBJECT: usize = 400;

/// Returns the authority that an authority's certificate describes.
///
/// # Errors
/// If the certificate can't be parsed.
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
/// If the file can't be read, is not a PEM file, or contains no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("{shown} can't be read"))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{shown} is not a PEM file of certificates"))?;
    if certificates.is_empty() {
        bail!("{shown} contains no certificate");
    }
    Ok(certificates)
}

fn read_revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("{shown} can't be read"))?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{shown} is not a PEM file of certificate revocation lists"))?;
    if lists.is_empty() {
        bail!("{shown} contains no certificate revocation list");
    }
    Ok(lists)
}

/// Trust anchor: one certificate of `tls_client_ca`.
#[derive(Debug)]
pub struct TrustAnchor {
    authority: Authority,
    /// Validity of the anchor's certificate: first and last second, since 1970.
    validity: (i64, i64),
    is_constrained: bool,
    has_revocation_list: bool,
    /// Verifier with this anchor alone.
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

    /// Returns true if the anchor's certificate has name constraints (RFC 5280, section 4.2.1.10).
    #[must_use]
    pub const fn is_constrained(&self) -> bool {
        self.is_constrained
    }

    /// Returns true if there is a revocation list of the authority itself.
    #[must_use]
    pub const fn has_revocation_list(&self) -> bool {
        self.has_revocation_list
    }

    /// Returns the end of the validity of the anchor's certificate.
    #[must_use]
    pub fn valid_until(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.validity.1).ok()
    }

    /// Returns true if the chain leads to this anchor at this time.
    ///
    /// RFC 5280, section 6.1, leaves the validity of anchors to the relying party. Here an expired anchor verifies
    /// nothing.
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

/// Returns a verifier of client certificates. A certificate is optional: other clients authenticate by a token.
///
/// Revocation is not checked for authorities without a revocation list in the file. A list that is past its next update
/// (RFC 5280, section 5.1.2.5) makes the verifier reject all certificates of its authority.
fn build_verifier(
    certificates: &[CertificateDer<'static>],
    lists: &[CertificateRevocationListDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .context("a certificate is not an authority's")?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .with_crls(lists.iter().cloned())
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration()
        .allow_unauthenticated()
        .build()?;
    Ok(Arc::new(ChainLengthVerifier(verifier)))
}

/// Maximum number of intermediate certificates of a client. Path building tries them in every order, so a client that
/// sends many forged ones would occupy a CPU for seconds.
const MAX_INTERMEDIATES: usize = 3;

/// Verifier that rejects long chains before path building.
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
    /// Number of this reading of the files, unique within the process.
    generation: u64,
    anchors: Vec<TrustAnchor>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientAuthorities {
    /// Reads the PEM files of authorities and revocation lists.
    ///
    /// # Errors
    /// If a file can't be read or is malformed.
    pub fn read(authorities: &Path, lists: Option<&Path>) -> Result<Self> {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let certificates = read_certificates(authorities)?;
        let lists = lists
            .map(read_revocation_lists)
            .transpose()?
            .unwrap_or_default();
        let shown = authorities.display();
        let anchors = certificates.iter().map(|certificate| {
            TrustAnchor::new(certificate.clone(), &lists).with_context(|| {
                format!("{shown} contains a certificate that is not an authority's")
            })
        });
        Ok(Self {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            anchors: anchors.collect::<Result<_>>()?,
            verifier: build_verifier(&certificates, &lists)
                .with_context(|| format!("{shown} can't be used for verification"))?,
        })
    }

    /// Returns the number of this reading of the files.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the trust anchors, in the order of the file.
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

    /// Returns the verifier for TLS handshakes. It accepts a chain that leads to any of the anchors.
    #[must_use]
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// Returns the anchors that the chain leads to, each authority once. A chain leads to several authorities if they
    /// have cross-signed its issuer.
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

    /// Logs the accepted authorities, and a warning for expired ones.
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

/// Holder of the authorities that are accepted now. Replaced when the files are read again (SIGHUP).
#[derive(Debug)]
pub struct ClientTrustStore(RwLock<Arc<ClientAuthorities>>);

impl ClientTrustStore {
    /// Returns a trust store with the given authorities.
    #[must_use]
    pub fn new(authorities: Arc<ClientAuthorities>) -> Self {
        Self(RwLock::new(authorities))
    }

    /// Returns the authorities that are accepted now.
    #[must_use]
    pub fn current(&self) -> Arc<ClientAuthorities> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the authorities.
    pub fn replace(&self, authorities: Arc<ClientAuthorities>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = authorities;
    }
}

#[cfg(test)]
mod tests;
