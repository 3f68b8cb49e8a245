//! Client certificates: their names, and the authorities that verify them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use crate::{
    auth::{authorities::ClientTrustStore, display::sanitized},
    model::identity::{Authority, CERTIFICATE, Claim, PINNING_CLAIM},
};

/// Interval after which a chain is verified again although neither authorities nor revocation lists have changed.
/// Certificates above the client's, and the lists, can expire.
const REVERIFY_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum length of the display name in parentheses after a principal's identity, in characters.
const MAX_DISPLAY_NAME: usize = 80;

/// Returns the bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the first and the last moment of a certificate's validity.
///
/// # Errors
/// If the certificate can't be parsed.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(certificate)?;
    let validity = parsed.validity();
    let from = Timestamp::from_second(validity.not_before.timestamp())?;
    Ok((
        from,
        Timestamp::from_second(validity.not_after.timestamp())?,
    ))
}

/// Maximum number of a certificate's names that become claims. More would make the client's requests slow others down:
/// identities are looked up by claim while the state is locked.
const MAX_NAMES: usize = 64;

/// Names in a certificate. They are unverified until the chain leads to an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CertificateNames {
    /// SHA-256 of the whole certificate, as hexadecimal digits.
    fingerprint: String,
    /// Names, each with the claim that identities match it by.
    claims: Vec<(&'static str, String)>,
    /// End of the certificate's validity.
    expires_at: Timestamp,
}

impl CertificateNames {
    /// Parses the names of a certificate; `None` if it can't be parsed.
    fn read(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut claims = Vec::new();
        for common_name in parsed.subject().iter_common_name() {
            if let Ok(text) = common_name.as_str() {
                claims.push(("common_name", text.to_owned()));
            }
        }
        let names = parsed.subject_alternative_name().ok().flatten();
        for general in names.iter().flat_map(|names| &names.value.general_names) {
            let (claim, text) = match general {
                GeneralName::DNSName(text) => ("dns", *text),
                GeneralName::RFC822Name(text) => ("email", *text),
                GeneralName::URI(text) => ("uri", *text),
                _ => continue,
            };
            claims.push((claim, text.to_owned()));
        }
        claims.truncate(MAX_NAMES);
        let until = parsed.validity().not_after.timestamp();
        Some(Self {
            fingerprint: hexadecimal(digest(&SHA256, certificate).as_ref()),
            claims,
            expires_at: Timestamp::from_second(until).ok()?,
        })
    }
}

/// Returns true if a certificate has name constraints (RFC 5280, section 4.2.1.10) or can't be parsed.
fn has_name_constraints(certificate: &[u8]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return true;
    };
    parsed.extensions().iter().any(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::NameConstraints(_)
        )
    })
}

/// Certificate that a client has presented in a TLS handshake, with proof of possession of its key.
///
/// [`Self::claims`] consults the current authorities on every call. Removal of an authority and revocation of the
/// certificate therefore take effect on open connections too.
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    names: CertificateNames,
    trust: Arc<ClientTrustStore>,
    verified: Mutex<Option<VerificationCache>>,
}

/// Cached outcome of a verification.
struct VerificationCache {
    generation: u64,
    verified_at: Instant,
    authorities: Vec<Authority>,
    /// True if common names are claims too.
    accepts_common_names: bool,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// Takes the chain of a handshake, the client's certificate first. Returns `None` if that can't be parsed.
    #[must_use]
    pub fn new(chain: &[CertificateDer<'_>], trust: Arc<ClientTrustStore>) -> Option<Self> {
        let chain: Vec<_> = chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        Some(Self {
            names: CertificateNames::read(chain.first()?)?,
            chain,
            trust,
            verified: Mutex::new(None),
        })
    }

    /// Returns the end of the certificate's validity.
    #[must_use]
    pub const fn expiry(&self) -> Timestamp {
        self.names.expires_at
    }

    /// Returns the stable name of the principal, unique to the certificate.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("certificate sha256:{}", self.names.fingerprint)
    }

    /// Returns the name for people: the identity, followed by a name from the certificate.
    #[must_use]
    pub fn name(&self) -> String {
        let identity = self.identity();
        let first = self.names.claims.first();
        let chosen = first.map(|(_, text)| sanitized(text, MAX_DISPLAY_NAME));
        match chosen.filter(|name| !name.is_empty()) {
            Some(chosen) => format!("{identity} ({chosen})"),
            None => identity,
        }
    }

    /// Returns the certificate's claims, once for each accepted authority that verifies it. Returns `None` if the
    /// certificate has expired or no authority verifies it.
    #[must_use]
    pub fn claims(&self, now: Timestamp) -> Option<Vec<Claim>> {
        if self.names.expires_at <= now {
            return None;
        }
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let authorities = self.trust.current();
        let is_recent = verified.as_ref().is_some_and(|verified| {
            verified.generation == authorities.generation()
                && verified.verified_at.elapsed() < REVERIFY_INTERVAL
        });
        if !is_recent {
            let anchors = authorities.anchors_for_chain(&self.chain, now);
            // Constraints on DNS names do not apply to common names. An authority that is constrained to a few names
            // could issue any common name.
            let constrained = self.chain.iter().any(|link| has_name_constraints(link))
                || anchors.iter().any(|anchor| anchor.is_constrained());
            *verified = Some(VerificationCache {
                generation: authorities.generation(),
                verified_at: Instant::now(),
                authorities: anchors
                    .into_iter()
                    .map(|anchor| anchor.authority().clone())
                    .collect(),
                accepts_common_names: !constrained,
            });
        }
        let verified = verified.as_ref()?;
        if verified.authorities.is_empty() {
            return None;
        }
        let claim = |claim: &str, value: &str, authority: Option<&Authority>| Claim {
            issuer: CERTIFICATE.to_owned(),
            claim: claim.to_owned(),
            value: value.to_owned(),
            authority: authority.cloned(),
        };
        let fingerprint = &self.names.fingerprint;
        let mut claims = vec![claim(PINNING_CLAIM, fingerprint, None)];
        for authority in &verified.authorities {
            claims.push(claim(PINNING_CLAIM, fingerprint, Some(authority)));
            for (name, value) in &self.names.claims {
                if *name != "common_name" || verified.accepts_common_names {
                    claims.push(claim(name, value, Some(authority)));
                }
            }
        }
        Some(claims)
    }
}
