//! Echo servers, and clients that notice an interruption of their flow.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tests::net::{
    namespace::Namespace,
    topology::{BACKENDS, ENDPOINT},
    wait,
};

/// Starts an echo server on each backend address. They run until the test process exits.
pub(crate) fn start_echo_servers(provider: &Namespace) {
    for address in BACKENDS {
        let (ready, is_ready) = mpsc::channel();
        provider.spawn(move || {
            let listener = TcpListener::bind((address, 7)).expect("a listener");
            ready.send(()).expect("a waiting test");
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut writer = stream.try_clone().expect("a stream");
                    let mut reader = stream;
                    let _peer_gone = std::io::copy(&mut reader, &mut writer);
                });
            }
        });
        is_ready.recv().expect("a server that listens");
    }
}

/// A client that repeatedly sends bytes over one connection and checks the echo, until the first failure or the end of
/// the test process.
pub(crate) struct EchoSession {
    round_trips: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
    _thread: thread::JoinHandle<()>,
}

impl EchoSession {
    /// Starts a client in the consumer's namespace.
    pub(crate) fn start(consumer: &Namespace) -> Self {
        let round_trips = Arc::new(AtomicU64::new(0));
        let failed = Arc::new(AtomicBool::new(false));
        let (counter, failure) = (Arc::clone(&round_trips), Arc::clone(&failed));
        let thread = consumer.spawn(move || {
            let mut stream = TcpStream::connect((ENDPOINT, 7)).expect("a connection");
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .expect("a stream");
            let mut answer = [0; 1_000];
            loop {
                let count = counter.load(Ordering::Relaxed);
                let question = [count.to_le_bytes()[0]; 1_000];
                let result = stream
                    .write_all(&question)
                    .and_then(|()| stream.read_exact(&mut answer));
                if result.is_err() || answer != question {
                    failure.store(true, Ordering::Relaxed);
                    return;
                }
                counter.store(count + 1, Ordering::Relaxed);
            }
        });
        Self {
            round_trips,
            failed,
            _thread: thread,
        }
    }

    /// Returns true if the connection failed, or an echo was wrong.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits for 100 more round trips, and panics if the session fails.
    #[track_caller]
    pub(crate) fn expect_progress(&self) {
        let start = self.round_trips.load(Ordering::Relaxed);
        wait::until_true("100 echoes", || {
            assert!(!self.has_failed(), "the echo session was interrupted");
            self.round_trips.load(Ordering::Relaxed) > start + 100
        });
    }
}
