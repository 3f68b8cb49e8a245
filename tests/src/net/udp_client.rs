//! UDP requests and replies that do not depend on timing.

use std::{net::UdpSocket, time::Duration};

use crate::net::wait;

/// Time to wait for a reply before the request is sent again.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);

/// Sends a request over a connected socket until a reply arrives that `accept` accepts, and returns the reply.
///
/// Errors and other replies are ignored: the server may still be starting, an ICMP error may arrive at any moment,
/// and the reply to an earlier request may be late.
///
/// # Panics
/// Panics if none comes in time.
#[track_caller]
pub fn request_until_accepted(
    socket: &UdpSocket,
    request: &[u8],
    accept: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    socket
        .set_read_timeout(Some(RETRY_INTERVAL))
        .expect("a socket");
    let mut buffer = vec![0; 65_536];
    wait::until("an answer", wait::DEFAULT_TIMEOUT, || {
        // A pending error of the socket fails the call without sending: the next round sends the request.
        let _pending = socket.send(request);
        while let Ok(length) = socket.recv(&mut buffer) {
            if accept(&buffer[..length]) {
                return Some(buffer[..length].to_vec());
            }
        }
        None
    })
}
