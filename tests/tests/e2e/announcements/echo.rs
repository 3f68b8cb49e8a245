//! Servers that tell a client its address and then echo, and their clients.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use tests::net::namespace::Namespace;

/// Port of the servers.
const PORT: u16 = 80;

/// Starts a server at an address. It runs until the test process exits.
#[track_caller]
pub(crate) fn serve(host: &Namespace, address: IpAddr) {
    let (ready, is_ready) = mpsc::channel();
    host.spawn(move || {
        let listener = TcpListener::bind((address, PORT)).expect("a listener");
        ready.send(()).expect("a waiting test");
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    is_ready.recv().expect("a server that listens");
}

fn echo(mut stream: TcpStream) -> io::Result<u64> {
    let client = stream.peer_addr()?.ip().to_canonical();
    stream.write_all(format!("{client}\n").as_bytes())?;
    let mut reader = stream.try_clone()?;
    io::copy(&mut reader, &mut stream)
}

/// A connection to a server.
pub(crate) struct Session {
    reader: BufReader<TcpStream>,
    /// Address that the server sees.
    pub(crate) seen_as: IpAddr,
}

impl Session {
    /// Connects, within the limit.
    pub(crate) fn connect(host: &Namespace, to: IpAddr, limit: Duration) -> io::Result<Self> {
        host.run_in(move || {
            let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), limit)?;
            stream.set_read_timeout(Some(limit))?;
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let seen_as = line.trim().parse().map_err(io::Error::other)?;
            Ok(Self { reader, seen_as })
        })
    }

    /// Sends data and receives it again, within the limit.
    pub(crate) fn exchange(&mut self, limit: Duration) -> io::Result<()> {
        let mut answer = [0; 4];
        self.reader.get_ref().set_read_timeout(Some(limit))?;
        self.reader.get_mut().write_all(b"ping")?;
        self.reader.read_exact(&mut answer)
    }
}
