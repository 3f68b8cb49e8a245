//! Packet log: names the packets that the XDP program dropped or rejected, and writes them to this process's log.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use gateway_common::{DropReason, maps::LoggedPacket};
use log::{Log, Metadata, Record, info, warn};
use tokio::io::unix::AsyncFd;

use crate::agent::{Agent, controller::Controller, packet_summary::summarize};

/// Time for which lines are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Maximum number of lines in that time.
const MAX_LINES: u64 = 100;

/// Number of records that are taken out at a time: other tasks run in between, however many packets are dropped.
const MAX_BATCH: usize = 1_024;

/// Minimum time between two reads of the program log.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// Delay after a failure to wait for it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the task.
///
/// # Errors
/// When the descriptor of the ring buffer can't be polled.
pub(crate) fn spawn(agent: Arc<Agent>, log: RingBuf<MapData>) -> Result<()> {
    // SAFETY: the ring buffer owns its descriptor, and returns the same one until it is dropped.
    let mut log = unsafe { AsyncFd::register(log) }?;
    tokio::spawn(async move {
        let mut limit = LineLimit::new(Instant::now());
        while let Ok(mut guard) = log.readable_mut().await {
            // The records are taken out at the pace of the data path, also those that are not written.
            let mut admitted = Vec::new();
            let mut is_drained = false;
            for _ in 0..MAX_BATCH {
                let Some(record) = guard.get_inner_mut().next() else {
                    is_drained = true;
                    break;
                };
                let (is_admitted, suppressed) = limit.admit(Instant::now());
                if suppressed > 0 {
                    info!("packet log: lines suppressed count={suppressed}");
                }
                if is_admitted {
                    admitted.extend(bytemuck::try_pod_read_unaligned::<LoggedPacket>(&record));
                }
            }
            if is_drained {
                guard.clear_ready();
            }
            drop(guard);
            if !admitted.is_empty() {
                let controller = agent.controller.lock().await;
                for packet in &admitted {
                    info!("{}", line(&controller, packet));
                }
            }
            tokio::task::yield_now().await;
        }
    });
    Ok(())
}

/// Starts the thread that writes what the tracepoint programs log to this process's log. It ends with the process.
///
/// A thread of its own, because the logger returns only when its ring buffer is empty, and formats each record before
/// the rate limit: a flood would hold a thread that tasks need.
///
/// # Errors
/// When the thread can't be started.
pub(crate) fn spawn_program_log(mut logger: EbpfLogger<LimitedLog>) -> Result<()> {
    let thread = thread::Builder::new().name("program-log".to_owned());
    thread
        .spawn(move || {
            loop {
                match wait_readable(logger.as_fd()) {
                    // Records of a flood are taken out together.
                    Ok(()) => {
                        logger.flush();
                        thread::sleep(FLUSH_INTERVAL);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        warn!("packet log: program log not read error=\"{error}\"");
                        thread::sleep(RETRY_INTERVAL);
                    }
                }
            }
        })
        .context("failed to start the thread of the program log")?;
    Ok(())
}

/// Waits until the descriptor is readable.
fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the structure outlives the call, and is the only one.
    if unsafe { libc::poll(&raw mut polled, 1, -1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The log of this process, with a rate limit.
#[derive(Debug)]
pub(crate) struct LimitedLog(Mutex<LineLimit>);

impl Default for LimitedLog {
    fn default() -> Self {
        Self(Mutex::new(LineLimit::new(Instant::now())))
    }
}

impl Log for LimitedLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let mut limit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_admitted, suppressed) = limit.admit(Instant::now());
        if suppressed > 0 {
            info!("packet log: lines suppressed count={suppressed}");
        }
        if is_admitted {
            log::logger().log(record);
        }
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

/// Returns the line about a packet.
fn line(controller: &Controller, packet: &LoggedPacket) -> String {
    let summary = summarize(packet);
    let state = controller.state();
    let interfaces = &controller.observed().interfaces;
    let mut interfaces = interfaces.iter();
    let interface = interfaces.find(|(_, interface)| interface.ifindex == packet.ifindex);
    let interface = interface.map(|(name, _)| &**name);
    let network = interface.and_then(|name| state.network_by_interface(name));
    let connections = &controller.map_snapshot().connections;
    let connection = connections.get(&packet.connection_slot);
    let endpoint = connection.and_then(|connection| state.endpoint_by_link_id(connection.id));
    let or_none = |name: Option<String>| name.unwrap_or_else(|| "-".to_owned());
    format!(
        "packet: {} reason={} endpoint={} network={} interface={} src={} dst={} proto={} length={}",
        summary.outcome,
        DropReason::from_number(packet.reason).map_or("unknown", DropReason::name),
        or_none(endpoint.map(ToString::to_string)),
        or_none(network.map(ToString::to_string)),
        or_none(interface.map(str::to_owned)),
        summary.source,
        summary.destination,
        summary.protocol,
        summary.length,
    )
}

/// Rate limit of lines: a flood must not fill the disk.
#[derive(Debug)]
struct LineLimit {
    window_start: Instant,
    lines: u64,
}

impl LineLimit {
    const fn new(now: Instant) -> Self {
        Self {
            window_start: now,
            lines: 0,
        }
    }

    /// Returns true if a line may be written now, and the number of lines that were suppressed before.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut suppressed = 0;
        if now.duration_since(self.window_start) >= WINDOW {
            suppressed = self.lines.saturating_sub(MAX_LINES);
            *self = Self::new(now);
        }
        self.lines += 1;
        (self.lines <= MAX_LINES, suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_flood_are_suppressed_and_counted() {
        let start = Instant::now();
        let mut limit = LineLimit::new(start);
        for _ in 0..MAX_LINES {
            assert_eq!(limit.admit(start), (true, 0));
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(start), (false, 0));
        }
        assert_eq!(limit.admit(start + WINDOW), (true, 7));
        assert_eq!(limit.admit(start + WINDOW), (true, 0));
    }
}
