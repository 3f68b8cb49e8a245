//! TCP connections from a chosen source address and port.

use std::{
    io,
    net::{SocketAddrV4, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

/// Length of an IPv4 socket address.
#[expect(clippy::cast_possible_truncation, reason = "a structure of 16 bytes")]
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// Opens a connection from a source address and port. Each system call on it, the connection's opening included, is
/// limited to the time.
///
/// The source may be in TIME_WAIT, if `tcp_tw_reuse` permits it.
///
/// # Errors
/// Fails with [`io::ErrorKind::TimedOut`] if there is no answer in time, or if the kernel or the peer refuses.
pub fn connect_from(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    limit: Duration,
) -> io::Result<TcpStream> {
    // SAFETY: the call takes numbers only.
    let descriptor =
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened above, and nothing else owns it.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    set_option(&stream, libc::SO_REUSEADDR, &1i32)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let source = raw_address(source);
    // SAFETY: the address lives until the call returns, and the length is its length.
    check(unsafe { libc::bind(descriptor, (&raw const source).cast(), ADDRESS_LEN) })?;
    let destination = raw_address(destination);
    // SAFETY: as for the call above.
    let result =
        check(unsafe { libc::connect(descriptor, (&raw const destination).cast(), ADDRESS_LEN) });
    match result {
        // A blocking socket reports so that its time limit has passed.
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            Err(io::ErrorKind::TimedOut.into())
        }
        Err(error) => Err(error),
        Ok(()) => Ok(stream),
    }
}

/// Makes `close` send a reset instead of a FIN.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(stream, libc::SO_LINGER, &linger)
}

/// Sets an option of the socket level.
fn set_option<T>(stream: &TcpStream, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("a small value");
    // SAFETY: the value lives until the call returns, and the length is its length.
    check(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    })
}

/// Returns an address as the kernel reads it.
fn raw_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("a small number"),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// Returns the error of a system call that failed.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
