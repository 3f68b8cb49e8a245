//! A certificate authority for tests.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// A certificate authority, and a directory for the certificates that it issues.
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
    signed: AtomicU64,
    files: tempfile::TempDir,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// The certificate's serial number.
    pub serial: u64,
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCa {
    /// Creates a certificate authority.
    ///
    /// # Panics
    /// Panics if the machine makes no keys.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tests");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let files = tempfile::tempdir().expect("a directory");
        fs::write(files.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self {
            issuer,
            signed: AtomicU64::new(1),
            files,
        }
    }

    /// Returns the path of the authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    /// Returns the directory of the authority's files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.files.path()
    }

    /// Issues a certificate with this common name, for a server on loopback or for a client.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    pub fn issue(&self, name: &str) -> IssuedCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let loopback = SanType::IpAddress("127.0.0.1".parse().expect("an address"));
        let dns = SanType::DnsName(name.try_into().expect("a name"));
        params.subject_alt_names = vec![loopback, dns];
        let serial = self.signed.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let signed = IssuedCertificate {
            certificate: self.files.path().join(format!("{name}.pem")),
            key: self.files.path().join(format!("{name}.key")),
            serial,
        };
        fs::write(&signed.certificate, certificate.pem()).expect("a file");
        fs::write(&signed.key, key.serialize_pem()).expect("a file");
        fs::set_permissions(&signed.key, fs::Permissions::from_mode(0o600)).expect("a mode");
        signed
    }

    /// Writes a revocation list of these certificates, and returns its path.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    pub fn write_crl(&self, certificates: &[&IssuedCertificate]) -> PathBuf {
        let revoked = certificates.iter().map(|signed| RevokedCertParams {
            serial_number: SerialNumber::from(signed.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        let path = self.files.path().join("crl.pem");
        fs::write(&path, list.pem().expect("a list")).expect("a file");
        path
    }
}
