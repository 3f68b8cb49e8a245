//! Packet socket that receives the frames of a filter (packet(7)).

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::receive::filter::{FrameFilter, program};

/// Length of the longest frame that is received. Longer ones are discarded: no message that the agent waits for is as
/// long.
const MAX_FRAME_LEN: usize = 2_048;

/// Size of the queue of received frames, as the kernel counts it: some thousand frames.
const QUEUE_BYTES: libc::c_int = 4 << 20;

/// Frame as it was received, with its Ethernet header and without a VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedFrame<'a> {
    /// Index of the interface that received the frame.
    pub ifindex: u32,
    /// Contents of the frame.
    pub bytes: &'a [u8],
}

/// Packet socket that receives the frames of a filter on all interfaces of the network namespace, and sends none.
///
/// XDP programs run before: frames that they drop, answer or redirect are not received.
#[derive(Debug)]
pub struct ReceiveSocket<F> {
    fd: AsyncFd<OwnedFd>,
    filter: PhantomData<fn() -> F>,
}

impl<F: FrameFilter> ReceiveSocket<F> {
    /// Opens the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses: `CAP_NET_RAW` is needed.
    pub fn open() -> io::Result<Self> {
        // Without a protocol nothing is queued before the filter is attached.
        // SAFETY: the call takes three numbers.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned the descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        attach_filter(&fd, &program(F::TESTS))?;
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        // More than the host's limit needs CAP_NET_ADMIN. Without it the queue is shorter, and frames are lost sooner.
        if set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE_BYTES).is_err() {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &QUEUE_BYTES)?;
        }
        bind(&fd, F::ETHERTYPE)?;
        // SAFETY: the descriptor is open, and stays the same until its owner, which moves into the result, closes it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self {
            fd,
            filter: PhantomData,
        })
    }

    /// Waits for frames, and passes at most `max_frames` of them to `on_frame`. Frames beyond that are left for the
    /// next call.
    ///
    /// # Errors
    /// When the kernel reports an error of the socket.
    pub async fn receive(
        &self,
        max_frames: usize,
        mut on_frame: impl FnMut(ReceivedFrame<'_>),
    ) -> io::Result<()> {
        let mut buffer = [0; MAX_FRAME_LEN];
        let mut ready = self.fd.readable().await?;
        for _ in 0..max_frames {
            match ready.try_io(|fd| receive_frame(fd.get_ref(), &mut buffer)) {
                Ok(Ok(Some(frame))) => on_frame(frame),
                // Too long.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                // The queue is empty.
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// Takes a frame from the queue. Returns `None` if the frame is longer than the buffer.
fn receive_frame<'a>(
    fd: &OwnedFd,
    buffer: &'a mut [u8; MAX_FRAME_LEN],
) -> io::Result<Option<ReceivedFrame<'a>>> {
    // SAFETY: all zeros is a valid value of the C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of_u32(&address);
    // SAFETY: buffer and address outlive the call, and have the given lengths.
    let length = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_TRUNC,
            (&raw mut address).cast(),
            &raw mut size,
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(buffer.get(..length).map(|bytes| ReceivedFrame {
        ifindex: address.sll_ifindex.cast_unsigned(),
        bytes,
    }))
}

/// Attaches a classic BPF program to a socket. From then on it can neither be replaced nor removed.
pub(super) fn attach_filter(fd: &impl AsFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog {
        len: length,
        // The kernel only reads the program.
        filter: program.as_ptr().cast_mut(),
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32)
}

/// Begins to receive frames of this `EtherType` from all interfaces.
fn bind(fd: &OwnedFd, ethertype: u16) -> io::Result<()> {
    // SAFETY: all zeros is a valid value of the C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = ethertype.to_be();
    // SAFETY: the address outlives the call, and has the given length.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_u32(&address),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_option<T>(fd: &impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value outlives the call, and has the given length.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of_u32(value),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns the size of a value as the socket calls take it.
fn size_of_u32<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0)
}
