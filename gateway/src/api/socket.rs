//! The control socket, for root and one group. The kernel authenticates its clients (`SO_PEERCRED`).

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

/// Bounds of the socket's connections. The kernel reports each client's user, so every connection is authenticated.
const LIMITS: ListenerLimits = ListenerLimits {
    total: 256,
    per_source: 64,
    authenticated: 256,
    authenticated_per_principal: 64,
    authenticated_per_tenant: 64,
    unauthenticated: 256,
    unauthenticated_per_source: 64,
};

/// The client of the socket: root, or a member of its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// The client's user id.
    pub(super) uid: Option<u32>,
}

/// Serves the API on the control socket until the process ends.
pub async fn serve(listener: UnixListener, agent: AppState, admission: Arc<Admission>) {
    let router = router(agent, admission);
    let registry = ConnectionRegistry::new(LIMITS);
    let (failures, refusals) = (LogLimit::new(), LogLimit::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The usual cause is a lack of file descriptors: other connections must end first.
                if let Some(more) = failures.admit() {
                    warn!("socket: accept failed error={error}{more}");
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
                warn!("socket: connection refused uid={uid:?} reason=\"connection limit\"{more}");
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
                debug!("socket: connection failed uid={uid:?} error={error:#}");
            }
        });
    }
}

/// A socket that listens, but is not at its final path yet.
#[derive(Debug)]
pub struct PreparedSocket {
    listener: StdListener,
    staging_path: PathBuf,
    path: PathBuf,
}

/// Creates the socket for root and the group, beside its final path. The caller holds the lock of the directory, so no
/// other agent listens there.
///
/// # Errors
/// If the socket can't be created.
pub fn prepare(path: &Path, group: &str) -> Result<PreparedSocket> {
    let hidden = path.with_extension("sock.new");
    let shown = hidden.display();
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| {
                format!(
                    "can't remove the old socket {shown}: check the permissions of its directory"
                )
            });
        }
        _ => {}
    }
    // No other user may connect between the socket's creation and the change of its mode.
    // SAFETY: umask(2) only sets and returns a number of this process.
    let mask = unsafe { libc::umask(0o177) };
    let listener = StdListener::bind(&hidden);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    let listener = listener.with_context(|| format!("can't listen on {shown}"))?;
    if let Some(gid) = group_id(group) {
        chown(&hidden, None, Some(gid))
            .with_context(|| format!("can't change the group of {shown} to {group}"))?;
    }
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("can't set the mode of {shown}"))?;
    Ok(PreparedSocket {
        listener,
        staging_path: hidden,
        path: path.to_owned(),
    })
}

impl PreparedSocket {
    /// Moves the socket to its final path, over one that an earlier agent left.
    ///
    /// # Errors
    /// If the socket can't be moved.
    pub fn publish(self) -> Result<UnixListener> {
        let shown = self.path.display();
        fs::rename(&self.staging_path, &self.path)
            .with_context(|| format!("can't move the socket to {shown}"))?;
        self.listener.set_nonblocking(true)?;
        UnixListener::from_std(self.listener).with_context(|| format!("can't listen on {shown}"))
    }
}

/// Returns the id of the group with this name, if there is one.
fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is NUL-terminated. The result points to memory of the C library, which is valid until the
    // next call. The agent calls this before any thread serves requests.
    unsafe {
        libc::getgrnam(name.as_ptr())
            .as_ref()
            .map(|group| group.gr_gid)
    }
}
