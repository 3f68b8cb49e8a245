//! Verification of certificate chains, generated for each test, against authorities.

use std::{path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    GeneralSubtree, IsCa, KeyIdMethod, KeyPair, NameConstraints, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

use super::*;
use crate::{auth::certificate::ClientCertificate, model::identity::Claim};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn root(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

/// Returns a client certificate with serial number 7 and the name as common name and DNS name.
fn client(issuer: &Issuer, name: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from(7));
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, issuer).unwrap().der().clone()
}

fn der(issuer: &Issuer) -> CertificateDer<'static> {
    issuer.as_ref().der().clone()
}

struct Files {
    _folder: tempfile::TempDir,
    authorities: PathBuf,
    lists: PathBuf,
}

impl Files {
    fn new(authorities: &[&Issuer]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let text: String = authorities.iter().map(|issuer| issuer.pem()).collect();
        let files = Self {
            authorities: folder.path().join("ca.pem"),
            lists: folder.path().join("crl.pem"),
            _folder: folder,
        };
        fs::write(&files.authorities, text).unwrap();
        files
    }

    fn read(&self) -> ClientAuthorities {
        let lists = self.lists.exists().then_some(&*self.lists);
        ClientAuthorities::read(&self.authorities, lists).unwrap()
    }

    /// Writes a revocation list of the issuer with these serial numbers.
    fn revoke(&self, issuer: &Issuer, serials: &[u64], until_year: i32) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(&self.lists, list.signed_by(issuer).unwrap().pem().unwrap()).unwrap();
    }
}

fn subjects(authorities: &ClientAuthorities, chain: &[CertificateDer<'static>]) -> Vec<String> {
    let found = authorities.anchors_for_chain(chain, Timestamp::now());
    found
        .iter()
        .map(|anchor| anchor.authority().subject.clone())
        .collect()
}

fn claims(trust: &Arc<ClientTrustStore>, chain: &[CertificateDer<'static>]) -> Option<Vec<Claim>> {
    ClientCertificate::new(chain, Arc::clone(trust))
        .unwrap()
        .claims(Timestamp::now())
}

fn trust(files: &Files) -> Arc<ClientTrustStore> {
    Arc::new(ClientTrustStore::new(Arc::new(files.read())))
}

#[test]
fn a_certificate_is_verified_for_its_issuing_authority_only() {
    let (one, two, three) = (root("one"), root("two"), root("three"));
    let authorities = Files::new(&[&one, &two]).read();
    assert_eq!(subjects(&authorities, &[client(&one, "x")]), ["CN=one"]);
    assert_eq!(subjects(&authorities, &[client(&two, "x")]), ["CN=two"]);
    assert!(subjects(&authorities, &[client(&three, "x")]).is_empty());
    assert!(subjects(&authorities, &[]).is_empty());
    // An authority with the same name and another key.
    let impostor = root("one");
    assert!(subjects(&authorities, &[client(&impostor, "x")]).is_empty());
}

#[test]
fn authorities_with_equal_names_are_distinguished_by_their_keys() {
    let (one, other) = (root("one"), root("one"));
    let files = Files::new(&[&one, &other]);
    let trust = trust(&files);
    let authority = |issuer: &Issuer| Some(authority_from_certificate(&der(issuer)).unwrap());
    let found = claims(&trust, &[client(&other, "x")]).unwrap();
    assert!(
        found
            .iter()
            .any(|claim| claim.authority == authority(&other))
    );
    assert!(!found.iter().any(|claim| claim.authority == authority(&one)));
}

#[test]
fn a_cross_signed_issuer_chains_to_each_authority() {
    let (one, two) = (root("one"), root("two"));
    let params = authority_params("between");
    let key = KeyPair::generate().unwrap();
    let copy = KeyPair::from_pem(&key.serialize_pem()).unwrap();
    let by_one = CertifiedIssuer::signed_by(params.clone(), key, &one).unwrap();
    let by_two = CertifiedIssuer::signed_by(params, copy, &two).unwrap();
    let leaf = client(&by_one, "x");
    let authorities = Files::new(&[&one, &two]).read();
    let both = [leaf.clone(), der(&by_one), der(&by_two)];
    assert_eq!(subjects(&authorities, &both), ["CN=one", "CN=two"]);
    assert_eq!(
        subjects(&authorities, &[leaf.clone(), der(&by_two)]),
        ["CN=two"]
    );
    assert!(subjects(&authorities, &[leaf]).is_empty());
}

#[test]
fn only_the_fingerprint_claim_needs_no_authority() {
    let one = root("one");
    let files = Files::new(&[&one]);
    let found = claims(&trust(&files), &[client(&one, "x")]).unwrap();
    for claim in &found {
        assert!(
            claim.authority.is_some() || claim.claim == "sha256",
            "{claim:?}"
        );
    }
    let names: Vec<&str> = found.iter().map(|claim| &*claim.claim).collect();
    assert_eq!(names, ["sha256", "sha256", "common_name", "dns"]);
}

#[test]
fn common_names_are_no_claims_under_name_constraints() {
    let one = root("one");
    let mut params = authority_params("constrained");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("team.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let key = KeyPair::generate().unwrap();
    let constrained = CertifiedIssuer::signed_by(params, key, &one).unwrap();
    let files = Files::new(&[&one]);
    let trust = trust(&files);
    let found = claims(
        &trust,
        &[client(&constrained, "a.team.example"), der(&constrained)],
    );
    let names: Vec<String> = found
        .unwrap()
        .into_iter()
        .map(|claim| claim.claim)
        .collect();
    assert_eq!(names, ["sha256", "sha256", "dns"]);
    let outside = [client(&constrained, "boss.example"), der(&constrained)];
    assert_eq!(claims(&trust, &outside), None);
}

#[test]
fn an_expired_authority_verifies_nothing() {
    let mut params = authority_params("old");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let old = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let authorities = Files::new(&[&old]).read();
    assert!(subjects(&authorities, &[client(&old, "x")]).is_empty());
}

#[test]
fn a_certificate_is_refused_after_its_revocation() {
    let (one, two) = (root("one"), root("two"));
    let files = Files::new(&[&one, &two]);
    let trust = trust(&files);
    let shown = [client(&one, "x")];
    let certificate = ClientCertificate::new(&shown, Arc::clone(&trust)).unwrap();
    assert!(certificate.claims(Timestamp::now()).is_some());
    files.revoke(&one, &[8], 2090);
    trust.replace(Arc::new(files.read()));
    assert!(certificate.claims(Timestamp::now()).is_some());
    files.revoke(&one, &[7], 2090);
    trust.replace(Arc::new(files.read()));
    assert_eq!(certificate.claims(Timestamp::now()), None);
    // The other authority has no list. Its certificate has the same serial number.
    assert!(claims(&trust, &[client(&two, "x")]).is_some());
    assert!(
        files.read().anchors()[0].has_revocation_list()
            && !files.read().anchors()[1].has_revocation_list()
    );
}

#[test]
fn expired_or_foreign_revocation_lists_refuse_certificates() {
    let one = root("one");
    let files = Files::new(&[&one]);
    files.revoke(&one, &[], 2025);
    assert!(subjects(&files.read(), &[client(&one, "x")]).is_empty());
    let impostor = root("one");
    files.revoke(&impostor, &[], 2090);
    assert!(subjects(&files.read(), &[client(&one, "x")]).is_empty());
    fs::write(&files.lists, "nonsense").unwrap();
    assert!(ClientAuthorities::read(&files.authorities, Some(&files.lists)).is_err());
}

#[test]
fn certificates_of_a_removed_authority_are_refused() {
    let (one, two) = (root("one"), root("two"));
    let files = Files::new(&[&one, &two]);
    let trust = trust(&files);
    let shown = [client(&one, "x")];
    let certificate = ClientCertificate::new(&shown, Arc::clone(&trust)).unwrap();
    assert!(certificate.claims(Timestamp::now()).is_some());
    fs::write(&files.authorities, two.pem()).unwrap();
    trust.replace(Arc::new(files.read()));
    assert_eq!(certificate.claims(Timestamp::now()), None);
}

#[test]
fn long_chains_are_refused_unverified() {
    let one = root("one");
    let authorities = Files::new(&[&one, &root("two")]).read();
    let own = client(&one, "x");
    // Forged authorities with the issuer's name: path building would try them in every order.
    let chain = |count: usize| {
        let mut chain = vec![own.clone()];
        chain.extend((0..count).map(|_| der(&root("one"))));
        chain
    };
    assert_eq!(
        subjects(&authorities, &chain(MAX_INTERMEDIATES)),
        ["CN=one"]
    );
    assert!(subjects(&authorities, &chain(MAX_INTERMEDIATES + 1)).is_empty());
    let now = UnixTime::now();
    let long = chain(40);
    let start = std::time::Instant::now();
    let verified = authorities
        .verifier()
        .verify_client_cert(&long[0], &long[1..], now);
    assert!(verified.is_err());
    assert!(start.elapsed() < Duration::from_millis(500));
}
