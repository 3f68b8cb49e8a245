//! TCP sockets of the host, as `/proc/net/tcp` lists them.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Lists of the sockets in the agent's network namespace.
const LISTS: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// State of a TCP socket, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketState {
    Established,
    Listening,
}

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: SocketState,
}

/// Returns the sockets that listen or are connected.
///
/// # Errors
/// Fails if a list can't be read. A kernel without IPv6 has no list of it.
pub(super) fn tcp_sockets() -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for path in LISTS {
        match fs::read_to_string(path) {
            Ok(text) => sockets.extend(text.lines().filter_map(parse_socket)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Parses a line. Returns `None` for the heading and for sockets in other states.
fn parse_socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let state = match state {
        "01" => SocketState::Established,
        "0A" => SocketState::Listening,
        _ => return None,
    };
    Some(Socket {
        local: parse_address(local)?,
        remote: parse_address(remote)?,
        state,
    })
}

/// Parses `ADDRESS:PORT`. The address is written as 32-bit words of the machine's byte order. An IPv4-mapped address is
/// returned as IPv4.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |start: usize| {
        let digits = address.get(start..start + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sockets_of_this_process_are_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let sockets = tcp_sockets().unwrap();
            let found = |local: SocketAddr, state| {
                sockets
                    .iter()
                    .any(|socket| (socket.local, socket.state) == (local, state))
            };
            assert!(found(server, SocketState::Listening), "{sockets:?}");
            assert!(found(
                accepted.local_addr().unwrap(),
                SocketState::Established
            ));
            assert!(found(
                client.local_addr().unwrap(),
                SocketState::Established
            ));
        }
    }

    #[test]
    fn other_lines_are_ignored() {
        for line in [
            "",
            "  sl  local_address rem_address   st tx_queue",
            "   0: 0100007F:1F90 00000000:0000 06 0",
            "   0: 0100007F 00000000:0000 0A 0",
            "   0: 0100:1F90 00000000:0000 0A 0",
        ] {
            assert_eq!(parse_socket(line), None, "{line}");
        }
    }
}
