//! The control socket: for root and one group, with the caller known by its credentials.

use std::{
    ffi::CString,
    fs, io,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::http::Extensions;
use log::{debug, warn};
use tokio::{net::UnixListener, time::sleep};

use crate::{
    api::{
        AppState,
        admission::Admission,
        listener::{self, ConnectionRegistry, ListenerLimits, WriteTimeoutStream},
        router,
        source::ClientSource,
    },
    log_limit::LogLimit,
    model::Principal,
};

/// Bounds of the socket's connections. The kernel tells whose they are, so none is without authentication.
const LIMITS: ListenerLimits = ListenerLimits {
    total: 256,
    per_source: 64,
    authenticated: 256,
    authenticated_per_principal: 64,
    authenticated_per_tenant: 64,
    unauthenticated: 256,
    unauthenticated_per_source: 64,
};

/// The client at the other end of the socket: root, or a member of its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// The user's number.
    pub(super) uid: Option<u32>,
}

/// Serves the API on the control socket, until the process ends.
pub async fn serve(listener: UnixListener, agent: AppState, admission: Arc<Admission>) {
    let router = router(agent, admission);
    let registry = ConnectionRegistry::new(LIMITS);
    let (failures, refusals) = (LogLimit::new(), LogLimit::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                if let Some(more) = failures.admit() {
                    warn!("socket: could not accept a connection error={error}{more}");
                }
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let credentials = stream.peer_cred();
        let uid = credentials.ok().map(|credentials| credentials.uid());
        let Some(registration) = ConnectionRegistry::register(&registry, ClientSource::User(uid))
        else {
            if let Some(more) = refusals.admit() {
                warn!("socket: refused a connection beyond the limits uid={uid:?}{more}");
            }
            continue;
        };
        registration.authenticate(&Principal::operator("operator", "socket"));
        let router = router.clone();
        tokio::spawn(async move {
            let extend = move |extensions: &mut Extensions| {
                extensions.insert(Peer { uid });
            };
            if let Err(error) = listener::serve(
                WriteTimeoutStream::new(stream),
                &registration,
                router,
                extend,
            )
            .await
            {
                debug!("socket: {error:#}");
            }
        });
    }
}

/// A socket that is ready, but not where clients look for it yet.
#[derive(Debug)]
pub struct PreparedSocket {
    listener: StdListener,
    staging_path: PathBuf,
    path: PathBuf,
}

/// Makes the socket, for root and the group. The caller holds the lock of its directory, so nobody else
/// listens there.
///
/// # Errors
/// When it can't be made.
pub fn prepare(path: &Path, group: &str) -> Result<PreparedSocket> {
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
    Ok(PreparedSocket {
        listener,
        staging_path: hidden,
        path: path.to_owned(),
    })
}

impl PreparedSocket {
    /// Puts it where clients look for it, in place of one that an earlier agent left.
    ///
    /// # Errors
    /// When it can't be put there.
    pub fn publish(self) -> Result<UnixListener> {
        let shown = self.path.display();
        fs::rename(&self.staging_path, &self.path)
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
