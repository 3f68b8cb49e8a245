//! Neighbours: asks for the MAC addresses of next hops, and takes over their answers as they come.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use log::warn;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    agent::{Agent, OutgoingFrame},
    neighbour::{NeighbourMessage, parse_arp, parse_neighbour_discovery},
    receive::{ArpFilter, NeighbourDiscoveryFilter, ReceiveSocket, ReceivedFrame},
};

/// Number of frames that are handled at once. The controller is free for others in between.
const MAX_FRAMES: usize = 64;

/// Time between two rounds of messages. The first is handled at once. A host that claims a backend's address again and
/// again does not keep the agent from its other work.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(10);

/// Delay after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Message with the index of the interface that received it.
type Received = (u32, NeighbourMessage);

/// Sockets for the messages of neighbours.
#[derive(Debug)]
pub(crate) struct NeighbourSockets {
    arp: ReceiveSocket<ArpFilter>,
    neighbour_discovery: ReceiveSocket<NeighbourDiscoveryFilter>,
}

impl NeighbourSockets {
    /// Opens the sockets. Must be called within a tokio runtime, and before the first solicitation is sent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn open() -> Result<Self> {
        let failed = "failed to open a packet socket for messages of neighbours";
        Ok(Self {
            arp: ReceiveSocket::open().context(failed)?,
            neighbour_discovery: ReceiveSocket::open().context(failed)?,
        })
    }

    /// Waits for messages.
    async fn receive(&self) -> io::Result<Vec<Received>> {
        let (mut arp, mut discovered) = (Vec::new(), Vec::new());
        tokio::select! {
            received = self.arp.receive(MAX_FRAMES, |frame| {
                arp.extend(parsed(frame, parse_arp));
            }) => received?,
            received = self.neighbour_discovery.receive(MAX_FRAMES, |frame| {
                discovered.extend(parsed(frame, parse_neighbour_discovery));
            }) => received?,
        }
        arp.append(&mut discovered);
        Ok(arp)
    }
}

/// Returns the message of a frame, with the index of the interface that received it.
fn parsed(
    frame: ReceivedFrame<'_>,
    parse: impl FnOnce(&[u8]) -> Option<NeighbourMessage>,
) -> Option<Received> {
    Some((frame.ifindex, parse(frame.bytes)?))
}

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>, sockets: NeighbourSockets) {
    let stepped = Arc::clone(&agent.controller.lock().await.observed.next_hops_stepped);
    let mut next = None;
    loop {
        let messages = tokio::select! {
            received = sockets.receive() => match received {
                Ok(messages) if messages.is_empty() => continue,
                Ok(messages) => messages,
                Err(error) => {
                    warn!("neighbours: nothing received error=\"{error}\"");
                    sleep(RETRY_INTERVAL).await;
                    continue;
                }
            },
            () = until(next) => Vec::new(),
            () = stepped.notified() => {
                next = next_step(&agent).await;
                continue;
            }
        };
        match advance(&agent, &messages).await {
            Ok(frames) => {
                agent.send_frames(&frames);
                next = next_step(&agent).await;
            }
            Err(error) => {
                warn!("neighbours: next hops not in the maps yet error=\"{error:#}\"");
                next = Some(Instant::now() + RETRY_INTERVAL);
            }
        }
        if !messages.is_empty() {
            sleep(MESSAGE_INTERVAL).await;
        }
    }
}

/// Takes over messages and the time that has passed. Returns the frames to be sent.
async fn advance(agent: &Agent, messages: &[Received]) -> Result<Vec<OutgoingFrame>> {
    let mut controller = agent.controller.lock().await;
    tokio::task::block_in_place(|| {
        let now = std::time::Instant::now();
        controller.observe_neighbours(messages, now)?;
        controller.step_next_hops(now)
    })
}

/// Returns the time of the next step.
async fn next_step(agent: &Agent) -> Option<Instant> {
    let controller = agent.controller.lock().await;
    let next = controller
        .observed
        .next_hops
        .next_step(std::time::Instant::now());
    next.map(Instant::from_std)
}

/// Waits until a time; for ever if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
