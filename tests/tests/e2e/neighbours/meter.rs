//! Meter of outages: a client that measures for how long it gets no answers.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tests::net::{namespace::Namespace, wait};

/// Port of the servers.
pub(crate) const PORT: u16 = 7;

/// Time for which a client waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_millis(40);

/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(5);

/// Kind of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// All questions belong to one flow.
    OneFlow,
    /// Each question opens a flow.
    NewFlows,
}

/// A client that asks the same server again and again, until it is stopped.
#[derive(Debug)]
pub(crate) struct OutageMeter {
    answers: Arc<AtomicU64>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
}

impl OutageMeter {
    /// Starts a client in the consumer's namespace, and waits for the first answers.
    #[track_caller]
    pub(crate) fn start(consumer: &Namespace, endpoint: IpAddr, client: Client) -> Self {
        let answers = Arc::new(AtomicU64::new(0));
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (counter, stop) = (Arc::clone(&answers), Arc::clone(&is_stopped));
        let thread = consumer.spawn(move || measure(endpoint, client, &counter, &stop));
        let meter = Self {
            answers,
            is_stopped,
            thread: Some(thread),
        };
        meter.expect_answers();
        meter
    }

    /// Waits for 100 more answers.
    #[track_caller]
    pub(crate) fn expect_answers(&self) {
        self.expect_answers_within(wait::DEFAULT_TIMEOUT);
    }

    /// Waits for 100 more answers until a deadline.
    #[track_caller]
    pub(crate) fn expect_answers_within(&self, deadline: Duration) {
        let start = self.answers.load(Ordering::Relaxed);
        wait::until("100 answers", deadline, || {
            (self.answers.load(Ordering::Relaxed) > start + 100).then_some(())
        });
    }

    /// Stops the client. Returns the longest time between two answers, from the first one to the last.
    pub(crate) fn stop(mut self) -> Duration {
        self.is_stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a running client");
        thread.join().expect("a client without a panic")
    }
}

impl Drop for OutageMeter {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

fn measure(
    endpoint: IpAddr,
    client: Client,
    answers: &AtomicU64,
    is_stopped: &AtomicBool,
) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last: Option<Instant> = None;
    let mut socket = connect(endpoint);
    let mut number = 0_u64;
    while !is_stopped.load(Ordering::Relaxed) {
        if client == Client::NewFlows {
            socket = connect(endpoint);
        }
        number += 1;
        // An ICMP error of an earlier question may be pending.
        let _pending = socket.send(&number.to_be_bytes());
        let mut answer = [0; 8];
        // Late answers to earlier questions are skipped.
        while let Ok(length) = socket.recv(&mut answer) {
            if length == 8 && u64::from_be_bytes(answer) == number {
                let now = Instant::now();
                longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
                last = Some(now);
                answers.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        thread::sleep(PAUSE);
    }
    longest
}

fn connect(endpoint: IpAddr) -> UdpSocket {
    let any: SocketAddr = if endpoint.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit");
    socket
        .connect((endpoint, PORT))
        .expect("a connected socket");
    socket
}

/// Starts a server that sends each datagram back. It runs until the test process exits.
pub(crate) fn start_echo_server(provider: &Namespace, address: IpAddr) {
    let socket = provider.run_in(move || UdpSocket::bind((address, PORT)).expect("a server"));
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let _client_gone = socket.send_to(&buffer[..length], client);
            }
        }
    });
}
