//! The control socket: for root and one group, with the caller known by its credentials.

use std::{
    ffi::CString,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
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

/// Makes the socket, in place of one that an earlier agent left. The caller holds the agent's lock,
/// so nobody else listens there.
///
/// # Errors
/// When it can't be made.
pub fn listen(path: &Path, group: &str) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("could not make the directory {}", directory.display()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not remove the old socket {shown}"));
        }
        _ => {}
    }
    // Between making the socket and setting its mode nobody else may connect.
    // SAFETY: sets and returns a number of this process.
    let mask = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    let listener = listener.with_context(|| format!("could not listen on {shown}"))?;
    if let Some(gid) = group_id(group) {
        chown(path, None, Some(gid))
            .with_context(|| format!("could not give {shown} to group {group}"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("could not set the mode of {shown}"))?;
    Ok(listener)
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
