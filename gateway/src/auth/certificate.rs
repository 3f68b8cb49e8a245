//! What a client's certificate says. That it is genuine was found out in the TLS handshake.

use ring::digest::{SHA256, digest};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use crate::{
    auth::Credential,
    model::identity::{CERTIFICATE, Claim},
};

/// The certificate, as claims: its names, and the SHA-256 of it in lower-case hexadecimal digits.
/// Nothing if it can't be read.
#[must_use]
pub fn credential(certificate: &[u8]) -> Option<Credential> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let mut claims = Vec::new();
    let mut add = |claim: &str, value: &str| {
        claims.push(Claim {
            issuer: CERTIFICATE.to_owned(),
            claim: claim.to_owned(),
            value: value.to_owned(),
        });
    };
    let mut name = None;
    for common_name in parsed.subject().iter_common_name() {
        if let Ok(text) = common_name.as_str() {
            add("common_name", text);
            name.get_or_insert_with(|| text.to_owned());
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
        add(claim, text);
        name.get_or_insert_with(|| text.to_owned());
    }
    let fingerprint: String = digest(&SHA256, certificate)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    add("sha256", &fingerprint);
    let until = parsed.validity().not_after.timestamp();
    Some(Credential::Claims {
        name: format!("certificate {}", name.unwrap_or(fingerprint)),
        claims,
        until: jiff::Timestamp::from_second(until).ok(),
    })
}
