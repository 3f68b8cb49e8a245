//! A TCP proxy to an agent's control socket, for programs that can't connect to unix sockets.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
};

/// Listens on loopback in the namespace of the calling thread until the process exits, and returns the port.
///
/// # Panics
/// Panics if nobody may listen there.
#[must_use]
pub fn listen(socket: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let socket = socket.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let socket = socket.clone();
            thread::spawn(move || proxy(&stream, &socket));
        }
    });
    port
}

/// Copies bytes in both directions until both have ended. An error in one direction closes the other.
fn proxy(near: &TcpStream, socket: &PathBuf) -> Option<()> {
    let far = UnixStream::connect(socket).ok()?;
    let (mut from_near, mut to_far) = (near.try_clone().ok()?, far.try_clone().ok()?);
    let there = thread::spawn(move || {
        let _broken = io::copy(&mut from_near, &mut to_far);
        let _gone = to_far.shutdown(Shutdown::Write);
    });
    let (mut from_far, mut to_near) = (far.try_clone().ok()?, near.try_clone().ok()?);
    let _broken = io::copy(&mut from_far, &mut to_near);
    let _gone = near.shutdown(Shutdown::Both);
    let _gone = far.shutdown(Shutdown::Both);
    there.join().ok()
}
