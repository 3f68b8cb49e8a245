//! Servers of the tests, which stop when dropped.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tests::net::{namespace::Namespace, wait};

/// Interval at which servers look whether they are to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A thread that runs until it is dropped.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Runs a function again and again in a namespace.
    fn start(namespace: &Namespace, mut step: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = namespace.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A UDP server that answers each datagram with the same one.
pub(crate) struct UdpServer {
    _worker: Worker,
}

impl UdpServer {
    /// Starts the server. An empty answer is not sent.
    pub(crate) fn start(namespace: &Namespace, address: SocketAddr, answer: &'static [u8]) -> Self {
        // A process that is being started still has the socket of an earlier server for a moment.
        let socket = wait::until("a free port", wait::DEFAULT_TIMEOUT, || {
            namespace.run_in(move || UdpSocket::bind(address)).ok()
        });
        socket
            .set_read_timeout(Some(POLL_INTERVAL))
            .expect("a time limit");
        let worker = Worker::start(namespace, move || {
            if let Ok((_, client)) = socket.recv_from(&mut [0; 2_048])
                && !answer.is_empty()
            {
                let _gone = socket.send_to(answer, client);
            }
        });
        Self { _worker: worker }
    }
}

/// A TCP server that accepts connections and echoes what they send.
pub(crate) struct TcpServer {
    _worker: Worker,
}

impl TcpServer {
    /// Starts the server.
    pub(crate) fn start(namespace: &Namespace, address: SocketAddr) -> Self {
        Self::start_with(namespace, address, |mut stream| {
            let mut data = [0; 1_024];
            while let Ok(length @ 1..) = stream.read(&mut data) {
                if stream.write_all(&data[..length]).is_err() {
                    break;
                }
            }
        })
    }

    /// Starts a server that calls the function for each connection, in a thread of its own.
    fn start_with(
        namespace: &Namespace,
        address: SocketAddr,
        serve: impl Fn(TcpStream) + Clone + Send + 'static,
    ) -> Self {
        let listener = wait::until("a free port", wait::DEFAULT_TIMEOUT, || {
            namespace.run_in(move || TcpListener::bind(address)).ok()
        });
        listener.set_nonblocking(true).expect("a listener");
        let worker = Worker::start(namespace, move || match listener.accept() {
            Ok((stream, _)) => {
                let serve = serve.clone();
                stream.set_nonblocking(false).expect("a stream");
                std::thread::spawn(move || serve(stream));
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        });
        Self { _worker: worker }
    }
}

/// A receiver of webhook deliveries.
pub(crate) struct WebhookReceiver {
    _server: TcpServer,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl WebhookReceiver {
    /// Starts the receiver.
    pub(crate) fn start(namespace: &Namespace, address: SocketAddr) -> Self {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&bodies);
        let server = TcpServer::start_with(namespace, address, move |mut stream| {
            let mut text = String::new();
            let mut data = [0; 4_096];
            while let Ok(length @ 1..) = stream.read(&mut data) {
                text.push_str(&String::from_utf8_lossy(&data[..length]));
                if text.ends_with('}') {
                    break;
                }
            }
            let _gone = stream.write_all(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n");
            received.lock().expect("a list").push(text);
        });
        Self {
            _server: server,
            bodies,
        }
    }

    /// Returns true if an event with the action was delivered.
    pub(crate) fn has_action(&self, action: &str) -> bool {
        let wanted = format!("\"action\":\"{action}\"");
        let bodies = self.bodies.lock().expect("a list");
        bodies.iter().any(|body| body.contains(&wanted))
    }
}

/// Opens a connection, sends some bytes and expects them back.
pub(crate) fn echo(namespace: &Namespace, to: SocketAddr) -> std::io::Result<TcpStream> {
    namespace.run_in(move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"hello")?;
        stream.read_exact(&mut [0; 5])?;
        Ok(stream)
    })
}
