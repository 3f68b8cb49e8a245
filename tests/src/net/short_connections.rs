//! Many short TCP connections between a client host and a server, and their outcomes at both ends.
//!
//! Each connection sends a request of its own number, receives the same bytes, and is closed. Client threads take the
//! next number from one counter, and the number determines the client's address and port, so every run opens the same
//! connections.

use std::{
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::net::{
    namespace::Namespace,
    tcp_client::{connect_from, reset_on_close},
    wait,
};

/// Number of server threads. A client thread waits for the end of its connection, so more client threads than these
/// would wait for a server.
pub const SERVER_THREADS: usize = 12;

/// The lowest port of a client.
const MIN_CLIENT_PORT: u16 = 1_024;
/// Number of ports of each client address.
pub const CLIENT_PORTS: u64 = 65_536 - MIN_CLIENT_PORT as u64;

/// Limit on each system call of a connection. The kernel repeats a lost SYN after one and three seconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Duration of a connection's opening that shows that a SYN was repeated.
const REPEATED_SYN: Duration = Duration::from_millis(900);

/// Number of failures after which no more connections are opened.
const MAX_FAILURES: u64 = 4;

/// Length of requests and answers.
const REQUEST_LEN: usize = 16;

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The client sends its FIN first, and its port is in TIME_WAIT afterwards.
    ClientFirst,
    /// The server sends its FIN first, and its end is in TIME_WAIT afterwards.
    ServerFirst,
    /// The client sends a reset.
    Reset,
}

/// Outcomes of connections at one end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Connections that carried data both ways and were closed.
    pub succeeded: u64,
    /// Connections that were reset or refused.
    pub resets: u64,
    /// Connections with a system call that took longer than the limit.
    pub timeouts: u64,
    /// Connections that failed in another way.
    pub others: u64,
    /// Connections that succeeded after a repeated SYN.
    pub repeated_syns: u64,
    /// The first failures.
    pub errors: Vec<String>,
}

impl Outcomes {
    /// Returns the number of connections that failed.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.resets + self.timeouts + self.others
    }

    fn add_error(&mut self, context: &str, error: &io::Error) {
        match error.kind() {
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => self.resets += 1,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => self.timeouts += 1,
            _ => self.others += 1,
        }
        if self.errors.len() < 8 {
            self.errors.push(format!("{context}: {error}"));
        }
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} succeeded ({} with a repeated SYN), {} resets, {} timeouts, {} other failures {:?}",
            self.succeeded,
            self.repeated_syns,
            self.resets,
            self.timeouts,
            self.others,
            self.errors
        )
    }
}

/// Outcomes that several threads add to.
type SharedOutcomes = Arc<Mutex<Outcomes>>;

/// Adds to outcomes.
fn add(outcomes: &SharedOutcomes, change: impl FnOnce(&mut Outcomes)) {
    change(&mut outcomes.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A server of short connections on one port of all addresses of a host. It stops when dropped.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    threads: Vec<JoinHandle<()>>,
    outcomes: SharedOutcomes,
}

impl Server {
    /// Starts the server.
    ///
    /// # Panics
    /// Panics if the port is in use.
    #[must_use]
    #[track_caller]
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        let listener = namespace
            .run_in(move || TcpListener::bind(("0.0.0.0", port)))
            .expect("a listener");
        let outcomes = SharedOutcomes::default();
        let threads = (0..SERVER_THREADS).map(|_| {
            let listener = listener.try_clone().expect("a listener");
            let outcomes = Arc::clone(&outcomes);
            thread::spawn(move || serve_all(&listener, &outcomes))
        });
        let threads = threads.collect();
        Self {
            listener,
            threads,
            outcomes,
        }
    }

    /// Stops the server after its open connections, and returns its outcomes.
    ///
    /// # Panics
    /// Panics if a server thread did.
    #[must_use]
    #[track_caller]
    pub fn stop(mut self) -> Outcomes {
        self.shut_down();
        for thread in self.threads.drain(..) {
            thread.join().expect("a server thread");
        }
        let outcomes = self.outcomes.lock();
        outcomes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes all calls of `accept` fail.
    fn shut_down(&self) {
        // The standard library has `shutdown(2)` for streams only.
        if let Ok(listener) = self.listener.try_clone() {
            let _closed = TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Serves connections one after the other, until the listener is shut down.
fn serve_all(listener: &TcpListener, outcomes: &SharedOutcomes) {
    loop {
        let result = match listener.accept() {
            Ok((stream, client)) => serve(stream).map_err(|error| (Some(client), error)),
            // The listener was shut down.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            Err(error) => Err((None, error)),
        };
        add(outcomes, |outcomes| match result {
            Ok(()) => outcomes.succeeded += 1,
            Err((client, error)) => outcomes.add_error(&format!("server of {client:?}"), &error),
        });
    }
}

/// Serves one connection.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT * wait::timeout_factor()))?;
    let mut request = [0; REQUEST_LEN];
    stream.read_exact(&mut request)?;
    stream.write_all(&request)?;
    match Close::from_request(request) {
        Close::ClientFirst => {}
        Close::ServerFirst => stream.shutdown(Shutdown::Write)?,
        Close::Reset => {
            return match stream.read(&mut request) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Err(io::Error::other("not reset")),
            };
        }
    }
    expect_end(&mut stream)
}

/// Reads until the peer's FIN, before which no more data may come.
fn expect_end(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(io::Error::other("data after the end")),
    }
}

impl Close {
    /// Returns the request of a connection.
    fn request(self, number: u64) -> [u8; REQUEST_LEN] {
        let mut request = [0x5a; REQUEST_LEN];
        request[0] = self as u8;
        request[8..].copy_from_slice(&number.to_be_bytes());
        request
    }

    const fn from_request(request: [u8; REQUEST_LEN]) -> Self {
        if request[0] == Self::ServerFirst as u8 {
            Self::ServerFirst
        } else if request[0] == Self::Reset as u8 {
            Self::Reset
        } else {
            Self::ClientFirst
        }
    }
}

/// A number of connections from one host.
#[derive(Clone, Debug)]
pub struct Load {
    /// The server's address and port, as the client knows it.
    pub destination: SocketAddrV4,
    /// Client addresses, which take turns. Each uses its ports in ascending order.
    pub clients: Vec<Ipv4Addr>,
    /// Number of connections.
    pub connections: u64,
    /// Number of connections at the same time.
    pub concurrency: usize,
    /// The end of each connection.
    pub close: Close,
}

impl Load {
    /// Opens the connections, and returns their outcomes at the client. Stops early after some failures.
    ///
    /// # Panics
    /// Panics if a thread does.
    #[must_use]
    #[track_caller]
    pub fn run(&self, namespace: &Namespace) -> Outcomes {
        assert!(
            self.concurrency <= SERVER_THREADS,
            "more than {SERVER_THREADS} connections at the same time"
        );
        let next = Arc::new(AtomicU64::new(0));
        let outcomes = SharedOutcomes::default();
        let start = Instant::now();
        let threads: Vec<_> = (0..self.concurrency)
            .map(|_| {
                let (load, next) = (self.clone(), Arc::clone(&next));
                let outcomes = Arc::clone(&outcomes);
                namespace.spawn(move || load.run_thread(&next, &outcomes))
            })
            .collect();
        for thread in threads {
            thread.join().expect("a client thread");
        }
        let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{:?} in {:?}: {outcomes}", self.close, start.elapsed());
        outcomes.clone()
    }

    /// Opens one connection after the other.
    fn run_thread(&self, next: &AtomicU64, outcomes: &SharedOutcomes) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.connections {
                return;
            }
            let source = self.source(number);
            let result = self.exchange(source, number);
            let mut is_over = false;
            add(outcomes, |outcomes| {
                match result {
                    Ok(opening) => {
                        outcomes.succeeded += 1;
                        outcomes.repeated_syns += u64::from(opening > REPEATED_SYN);
                    }
                    Err((step, error)) => {
                        outcomes.add_error(&format!("{step} of {number}, from {source}"), &error);
                    }
                }
                is_over = outcomes.failed() >= MAX_FAILURES;
            });
            if is_over {
                return;
            }
        }
    }

    /// Returns the client's address and port of a connection.
    fn source(&self, number: u64) -> SocketAddrV4 {
        let count = self.clients.len() as u64;
        let client = usize::try_from(number % count).expect("an index");
        let port = u64::from(MIN_CLIENT_PORT) + number / count % CLIENT_PORTS;
        let port = u16::try_from(port).expect("a port");
        SocketAddrV4::new(self.clients[client], port)
    }

    /// Makes one connection. Returns the duration of its opening, or the step that failed.
    fn exchange(
        &self,
        source: SocketAddrV4,
        number: u64,
    ) -> Result<Duration, (&'static str, io::Error)> {
        let start = Instant::now();
        let limit = TIMEOUT * wait::timeout_factor();
        let mut stream =
            connect_from(source, self.destination, limit).map_err(|error| ("opening", error))?;
        let opening = start.elapsed();
        let request = self.close.request(number);
        let mut answer = [0; REQUEST_LEN];
        stream
            .write_all(&request)
            .map_err(|error| ("request", error))?;
        stream
            .read_exact(&mut answer)
            .map_err(|error| ("answer", error))?;
        if answer != request {
            return Err(("answer", io::Error::other("bytes of another connection")));
        }
        let closed = match self.close {
            Close::ClientFirst => stream
                .shutdown(Shutdown::Write)
                .and_then(|()| expect_end(&mut stream)),
            Close::ServerFirst => expect_end(&mut stream),
            Close::Reset => reset_on_close(&stream),
        };
        closed.map_err(|error| ("close", error))?;
        Ok(opening)
    }
}
