//! A gateway's listener for tenants, and clients of it that behave well or badly.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::{
    net::{namespace::Namespace, wait},
    services::{
        agent::Agent,
        test_ca::{IssuedCertificate, TestCa},
    },
};

/// The port of the listener.
const PORT: u16 = 8_443;
/// Time that a well-behaved client waits for the gateway.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// A gateway with a listener for tenants on all addresses of its host, and no network.
pub struct ApiFixture {
    /// The gateway. Dropped first.
    pub agent: Agent,
    /// Certificate authority of the listener and its clients.
    pub ca: TestCa,
    /// The gateway's host.
    pub host: Arc<Namespace>,
}

impl ApiFixture {
    /// Starts a gateway with these settings, and tenants `a` and `b`.
    ///
    /// # Panics
    /// Panics if it does not start.
    #[must_use]
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let host = Arc::new(Namespace::new("gw"));
        // Loopback addresses in several /64 networks. A connection to one of them has the same source address.
        host.enable_ipv6("lo", &[]);
        for network in 0..8 {
            for number in 1..=8 {
                host.ip(&format!(
                    "address add {}/128 dev lo nodad",
                    address(network, number).ip()
                ));
            }
        }
        let ca = TestCa::new();
        let server = ca.issue("gateway");
        let mut agent = Agent::prepare(&host);
        for (key, value) in [
            ("LISTEN", format!("[::]:{PORT}")),
            ("TLS_CERTIFICATE", server.certificate.display().to_string()),
            ("TLS_KEY", server.key.display().to_string()),
            ("TLS_CLIENT_CA", ca.certificate().display().to_string()),
        ] {
            agent.settings.insert(format!("PLGW_{key}"), value);
        }
        for (key, value) in settings {
            agent
                .settings
                .insert((*key).to_owned(), (*value).to_owned());
        }
        agent.restart();
        agent.cli("tenant create a");
        agent.cli("tenant create b");
        Self { agent, ca, host }
    }

    /// Creates a token, `TENANT/NAME`, and returns the file that holds it.
    pub fn create_token_file(&self, token: &str, role: &str) -> PathBuf {
        let path = self.ca.directory().join(token.replace('/', "-"));
        let to = path.display();
        self.agent.cli(&format!(
            "tenant token create {token} --role {role} --output-file {to}"
        ));
        path
    }

    /// Creates a token and returns it.
    ///
    /// # Panics
    /// Panics if it is not there.
    pub fn create_token(&self, token: &str, role: &str) -> String {
        let path = self.create_token_file(token, role);
        fs::read_to_string(path).expect("a token").trim().to_owned()
    }

    /// Returns the TLS configuration of a client, with a client certificate or without.
    ///
    /// # Panics
    /// Panics if a file can't be read.
    #[must_use]
    pub fn tls_config(&self, signed: Option<&IssuedCertificate>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.ca.certificate());
        roots.add(ca.expect("a certificate")).expect("an authority");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        Arc::new(match signed {
            None => builder.with_no_client_auth(),
            Some(signed) => {
                let chain = CertificateDer::from_pem_file(&signed.certificate);
                let key = PrivateKeyDer::from_pem_file(&signed.key).expect("a key");
                builder
                    .with_client_auth_cert(vec![chain.expect("a certificate")], key)
                    .expect("a certificate and its key")
            }
        })
    }

    /// Returns the resident memory of the agent, in MiB.
    #[must_use]
    pub fn resident_memory(&self) -> u64 {
        self.memory_field("VmRSS:")
    }

    /// Returns the peak of resident memory since [`Self::reset_peak_memory`], in MiB.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.memory_field("VmHWM:")
    }

    /// Resets the peak of resident memory.
    ///
    /// # Panics
    /// Panics if the kernel refuses.
    pub fn reset_peak_memory(&self) {
        let path = format!("/proc/{}/clear_refs", self.agent.pid());
        fs::write(path, "5").expect("a peak that is forgotten");
    }

    fn memory_field(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.agent.pid());
        let text = fs::read_to_string(path).expect("a status");
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let fields = line.and_then(|line| line.split_whitespace().next());
        fields
            .and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number")
            / 1_024
    }

    /// Returns the number of open connections of the listener.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        let line = format!("ss -Htn state established sport = :{PORT}");
        crate::net::process::succeed(&mut self.host.command_line(&line))
            .lines()
            .count()
    }
}

/// Returns an address of the listener: number 1 to 8 in one of eight /64 networks. A client that connects to it has
/// the same address.
#[must_use]
pub fn address(network: u16, number: u16) -> SocketAddr {
    SocketAddr::from(([0xfd00, 0, 0, network, 0, 0, 0, number], PORT))
}

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// Body.
    pub body: String,
}

/// A TLS connection, in the namespace of the thread that opens it.
pub struct TlsClient(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl TlsClient {
    /// Connects and finishes the handshake.
    ///
    /// # Errors
    /// Fails if the gateway refuses, or takes longer than `CLIENT_TIMEOUT`.
    pub fn connect(config: &Arc<ClientConfig>, to: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&to, CLIENT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        let name = ServerName::try_from("gateway").expect("a name");
        let mut connection =
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Self(BufReader::new(StreamOwned::new(connection, stream))))
    }

    /// Sends raw bytes.
    ///
    /// # Errors
    /// Fails if the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)?;
        self.0.get_mut().flush()
    }

    /// Sends the head of a request that declares a body of `length` bytes.
    ///
    /// # Errors
    /// Fails if the connection is gone.
    pub fn send_head(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        length: usize,
    ) -> io::Result<()> {
        let token = match token {
            "" => String::new(),
            token => format!("authorization: Bearer {token}\r\n"),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: gateway\r\n{token}content-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.send(head.as_bytes())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Fails if the connection is gone.
    pub fn send_request(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> io::Result<()> {
        self.send_head(method, path, token, body.len())?;
        self.send(body.as_bytes())
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads the head of a response. The body is left unread.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn read_response_head(&mut self) -> io::Result<HttpResponse> {
        let mut head = String::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            head.push_str(&line.to_lowercase());
            head.push('\n');
        }
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        Ok(HttpResponse {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            head,
            body: String::new(),
        })
    }

    /// Reads a response.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn read_response(&mut self) -> io::Result<HttpResponse> {
        let mut answer = self.read_response_head()?;
        let length = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    /// Sends a request and reads the response.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> io::Result<HttpResponse> {
        self.send_request(method, path, token, body)?;
        self.read_response()
    }

    /// Waits until the peer closes the connection, and returns the time that it took. Data is discarded.
    ///
    /// # Errors
    /// Fails if it does not come within `CLIENT_TIMEOUT` after something else.
    pub fn wait_for_close(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        let mut rest = [0; 16_384];
        loop {
            match self.0.read(&mut rest) {
                Ok(0) => return Ok(start.elapsed()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => return Ok(start.elapsed()),
            }
        }
    }
}

/// Measures the latency of small requests until `until` returns true.
///
/// # Panics
/// Panics if one is not answered with 200.
pub fn measure_latencies(
    config: &Arc<ClientConfig>,
    to: SocketAddr,
    path: &str,
    token: &str,
    mut until: impl FnMut() -> bool,
) -> Latencies {
    let mut client = TlsClient::connect(config, to).expect("a connection");
    let mut times = Vec::new();
    while !until() {
        let start = Instant::now();
        let answer = client.request("GET", path, token, "").expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        times.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
    times.sort();
    Latencies(times)
}

/// Latencies of requests, in ascending order.
#[derive(Clone, Debug)]
pub struct Latencies(pub Vec<Duration>);

impl Latencies {
    /// Returns the latency within which `share` of 1,000 requests were answered.
    ///
    /// # Panics
    /// Panics if nothing was measured.
    #[must_use]
    pub fn permille(&self, share: usize) -> Duration {
        assert!(self.0.len() >= 100, "{} requests are too few", self.0.len());
        self.0[(self.0.len() * share / 1_000).min(self.0.len() - 1)]
    }

    /// Returns the percentiles as text.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} requests: p50 {:?}, p99 {:?}, most {:?}",
            self.0.len(),
            self.permille(500),
            self.permille(990),
            self.permille(1_000)
        )
    }

    /// Panics if the 99th percentile exceeds 50 ms. On a machine whose processors are busy with other programs, four
    /// times the latency without an attack is allowed.
    ///
    /// # Panics
    /// Panics if it is more.
    #[track_caller]
    pub fn expect_low_latency(&self, quiet: &Self) {
        let bound = Duration::from_millis(50).max(quiet.permille(990) * 4) * wait::timeout_factor();
        assert!(
            self.permille(990) <= bound,
            "under attack {}; before {}",
            self.summary(),
            quiet.summary()
        );
    }
}
