//! An OpenID Connect provider: nginx with two files, and the keys that sign its tokens.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};

use crate::{
    net::{
        namespace::Namespace,
        process::{BackgroundProcess, succeed},
        wait,
    },
    services::{nginx, test_ca::TestCa},
};

/// An OpenID Connect provider on loopback in a namespace.
pub struct OidcProvider {
    /// Issuer URL.
    pub url: String,
    root: PathBuf,
    keys: Vec<(String, KeyPair)>,
    running: Option<BackgroundProcess>,
    _files: tempfile::TempDir,
}

impl OidcProvider {
    /// Starts the provider on a port, with a first key.
    ///
    /// # Panics
    /// Panics if it does not start.
    #[must_use]
    pub fn start(namespace: &Namespace, ca: &TestCa, port: u16) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let root = files.path().join("root");
        fs::create_dir_all(root.join(".well-known")).expect("a directory");
        let signed = ca.issue(&format!("issuer-{port}"));
        let (certificate, key) = (signed.certificate.display(), signed.key.display());
        let server = format!(
            "listen 127.0.0.1:{port} ssl; root root;
             ssl_certificate {certificate}; ssl_certificate_key {key};"
        );
        let running = nginx::run(namespace, files.path(), &server);
        let question = format!("ss -Hltn src 127.0.0.1:{port}");
        wait::until_true("the issuer to listen", || {
            !succeed(&mut namespace.command_line(&question)).is_empty()
        });
        let url = format!("https://127.0.0.1:{port}");
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") });
        let path = root.join(".well-known/openid-configuration");
        fs::write(path, discovery.to_string()).expect("a file");
        let mut issuer = Self {
            url,
            root,
            keys: Vec::new(),
            running: Some(running),
            _files: files,
        };
        issuer.rotate_key("first");
        issuer
    }

    /// Replaces the signing key, and publishes only the new one.
    ///
    /// # Panics
    /// Panics if the machine makes no keys.
    pub fn rotate_key(&mut self, id: &str) {
        let key = KeyPair::generate().expect("a key");
        // An uncompressed point (SEC 1, section 2.3.3).
        let point = key.der_bytes();
        assert_eq!(point.len(), 65);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        });
        let set = json!({ "keys": [jwk] }).to_string();
        fs::write(self.root.join("jwks"), set).expect("a file");
        self.keys.push((id.to_owned(), key));
    }

    /// Stops answering: connections are accepted and handed to the caller. Waits until the old server is gone.
    ///
    /// # Panics
    /// Panics if the port is not given back.
    pub fn stop_answering(&mut self, namespace: &Namespace) -> mpsc::Receiver<TcpStream> {
        // SIGKILL would leave nginx's worker running, which holds the port.
        if let Some(mut running) = self.running.take() {
            running.terminate();
        }
        let address = self.url.trim_start_matches("https://").to_owned();
        let listener = wait::until("the issuer's port", wait::DEFAULT_TIMEOUT, || {
            let address = address.clone();
            namespace.run_in(move || TcpListener::bind(address).ok())
        });
        let (sender, accepted) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        accepted
    }

    /// Returns a token of these claims that names a key, with an invalid signature.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    pub fn forge_token(&self, key_id: &str, claims: Value) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({ "alg": "ES256", "typ": "JWT", "kid": key_id }));
        let signature = URL_SAFE_NO_PAD.encode([7; 64]);
        format!(
            "{header}.{}.{signature}",
            part(self.with_default_claims(claims))
        )
    }

    /// Returns a token of these claims, signed with the current key. Missing `iss`, `aud` and `exp` are added.
    ///
    /// # Panics
    /// Panics if it can't be signed.
    #[must_use]
    pub fn sign_token(&self, claims: Value) -> String {
        self.sign_token_with_key(self.keys.len() - 1, claims)
    }

    /// Returns a token of these claims, signed with one of the keys so far.
    ///
    /// # Panics
    /// Panics if it can't be signed.
    #[must_use]
    pub fn sign_token_with_key(&self, key: usize, claims: Value) -> String {
        let (id, key) = &self.keys[key];
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.clone());
        let key = EncodingKey::from_ec_der(&key.serialize_der());
        encode(&header, &self.with_default_claims(claims), &key).expect("a token")
    }

    /// Returns the claims with `iss`, `aud` and `exp`.
    ///
    /// # Panics
    /// Panics if the clock is before 1970.
    #[must_use]
    pub fn with_default_claims(&self, claims: Value) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("time");
        let mut all = json!({
            "iss": self.url, "aud": "gateway", "exp": now.as_secs() + 600, "sub": "somebody",
        });
        let map = all.as_object_mut().expect("an object");
        map.extend(claims.as_object().expect("an object").clone());
        all
    }
}
