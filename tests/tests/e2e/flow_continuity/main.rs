//! Flows while hosts move, die and compete: what clients experience, with real sockets at both ends.

mod dead_backends;
mod limits;
mod moved_clients;
mod privileged_ports;

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use tests::net::{
    namespace::Namespace,
    topology::{BACKENDS, ENDPOINT},
};

/// Time in which the next answer is awaited before the question is asked again.
const PATIENCE: Duration = Duration::from_millis(100);

/// Starts servers on a TCP port of both backends, which return what they get, until the test process exits.
fn start_tcp_echo(provider: &Namespace, port: u16) {
    for address in BACKENDS {
        let listener = provider
            .run_in(move || TcpListener::bind((address, port)))
            .expect("a listener");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut writer = stream.try_clone()?;
                    io::copy(&mut stream, &mut writer)
                });
            }
        });
    }
}

/// Starts servers on a UDP port of both backends, which answer with their own address, until the test process exits.
fn start_udp_servers(provider: &Namespace, port: u16) {
    for address in BACKENDS {
        let socket = provider
            .run_in(move || UdpSocket::bind((address, port)))
            .expect("a socket");
        std::thread::spawn(move || {
            while let Ok((_, client)) = socket.recv_from(&mut [0; 64]) {
                // The client or the address may be gone.
                let _sent = socket.send_to(address.as_bytes(), client);
            }
        });
    }
}

/// Sends a line and waits until it comes back.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; 9];
    stream.write_all(b"question\n")?;
    stream.read_exact(&mut answer)
}

/// Asks a connected UDP socket until an answer comes that `accept` accepts. Returns the time that it took.
fn ask_until(socket: &UdpSocket, accept: impl Fn(&str) -> bool, limit: Duration) -> Duration {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let since = Instant::now();
    let mut buffer = [0; 64];
    loop {
        assert!(since.elapsed() < limit, "no such answer within {limit:?}");
        // A pending ICMP error fails the call.
        let _pending = socket.send(b"question");
        if let Ok(length) = socket.recv(&mut buffer) {
            if accept(&String::from_utf8_lossy(&buffer[..length])) {
                return since.elapsed();
            }
            std::thread::sleep(PATIENCE / 10);
        }
    }
}

/// Returns a UDP socket that is connected to the endpoint.
fn udp_client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect((ENDPOINT, port)).expect("a route");
    socket
}
