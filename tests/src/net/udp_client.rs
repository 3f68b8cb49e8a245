//! Questions and answers by UDP that do not depend on timing.

use std::{net::UdpSocket, time::Duration};

use crate::net::wait;

/// How long one answer is waited for before the question is sent again.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);

/// Sends a question over a connected socket until an answer comes that `accept` takes, and returns it.
///
/// Refusals and answers that are not accepted are passed over: the server may still be starting, an ICMP
/// error may arrive at any moment, and the answer to an earlier question may be late.
///
/// # Panics
/// When none comes in time.
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
        // An error that is pending on the socket takes the place of the question: the next round sends it.
        let _pending = socket.send(request);
        while let Ok(length) = socket.recv(&mut buffer) {
            if accept(&buffer[..length]) {
                return Some(buffer[..length].to_vec());
            }
        }
        None
    })
}
