//! HTTP server of the demo where nginx is not installed. Every response is a name.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Serves until the process is killed. The response to `/endless` never ends.
pub(crate) fn serve_name(address: SocketAddr, name: &str) -> Result<()> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("can't listen on {address}"))?;
    for stream in listener.incoming() {
        let (stream, name) = (stream?, name.to_owned());
        thread::spawn(move || {
            if let Err(error) = answer_request(stream, &name) {
                eprintln!("demo server: connection failed error={error}");
            }
        });
    }
    Ok(())
}

fn answer_request(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut request = [0; 4_096];
    let length = stream.read(&mut request)?;
    if request[..length].starts_with(b"GET /endless ") {
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(&[b'.'; 1_000])?;
            // Paces the transfer.
            thread::park_timeout(Duration::from_millis(20));
        }
    }
    let body = format!("hello from {name}\n");
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
