//! Packet log: forwards the log messages of the XDP program to this process's log.

use anyhow::Result;
use aya_log::EbpfLogger;
use log::Log;
use tokio::io::unix::AsyncFd;

/// Starts the task.
///
/// # Errors
/// When the logger's descriptor can't be polled.
pub(crate) fn spawn(logger: EbpfLogger<&'static dyn Log>) -> Result<()> {
    // SAFETY: the logger owns the descriptor of its ring buffer, and returns the same one until it is dropped.
    let mut logger = unsafe { AsyncFd::register(logger) }?;
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
