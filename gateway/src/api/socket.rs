//! The control socket: for root and one group, with the caller known by its credentials.

use std::{
    ffi::CString,
    fs, io,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::UnixListener;

/// Who is at the other end of the socket: root, or a member of its group.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The user's number.
    pub(super) uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self {
            uid: credentials.ok().map(|credentials| credentials.uid()),
        }
    }
}

/// A socket that is ready, but not where clients look for it yet.
#[derive(Debug)]
pub struct Prepared {
    listener: StdListener,
    hidden: PathBuf,
    path: PathBuf,
}

/// Makes the socket, for root and the group. The caller holds the lock of its directory, so nobody else
/// listens there.
///
/// # Errors
/// When it can't be made.
pub fn prepare(path: &Path, group: &str) -> Result<Prepared> {
    let hidden = path.with_extension("sock.new");
    let shown = hidden.display();
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not remove the old socket {shown}"));
        }
        _ => {}
    }
    // Between making the socket and setting its mode nobody else may connect.
    // SAFETY: sets and returns a number of this process.
    let mask = unsafe { libc::umask(0o177) };
    let listener = StdListener::bind(&hidden);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    let listener = listener.with_context(|| format!("could not listen on {shown}"))?;
    if let Some(gid) = group_id(group) {
        chown(&hidden, None, Some(gid))
            .with_context(|| format!("could not give {shown} to group {group}"))?;
    }
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("could not set the mode of {shown}"))?;
    Ok(Prepared {
        listener,
        hidden,
        path: path.to_owned(),
    })
}

impl Prepared {
    /// Puts it where clients look for it, in place of one that an earlier agent left.
    ///
    /// # Errors
    /// When it can't be put there.
    pub fn publish(self) -> Result<UnixListener> {
        let shown = self.path.display();
        fs::rename(&self.hidden, &self.path)
            .with_context(|| format!("could not put the socket at {shown}"))?;
        self.listener.set_nonblocking(true)?;
        UnixListener::from_std(self.listener)
            .with_context(|| format!("could not listen on {shown}"))
    }
}

/// The number of a group, if there is one of the name.
fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is terminated. The result points to memory of the C library, valid until the
    // next such call; the agent makes this one before it starts other threads' requests.
    unsafe {
        libc::getgrnam(name.as_ptr())
            .as_ref()
            .map(|group| group.gr_gid)
    }
}
