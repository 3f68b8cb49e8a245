//! Neighbours: asks for the MAC addresses of next hops, and takes over their answers as they come.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use log::warn;
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    agent::{Agent, OutgoingFrame, controller::Controller},
    neighbour::{NeighbourMessage, Round, WantedNeighbours, parse_arp, parse_neighbour_discovery},
    receive::{ArpFilter, NeighbourDiscoveryFilter, ReceiveSocket, ReceivedFrame},
};

/// Number of frames that are taken out of a queue before other tasks of the thread get their turn.
const MAX_FRAMES: usize = 256;

/// Time between two rounds of messages. The first is handled at once. A host that claims a backend's address again and
/// again does not keep the agent from its other work.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(10);

/// Delay after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

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

    /// Waits for messages, and adds those of wanted neighbours to the round.
    async fn receive(&self, inbox: &Inbox) -> io::Result<()> {
        tokio::select! {
            received = self.arp.receive(MAX_FRAMES, |frame| {
                inbox.add(frame, parse_arp);
            }) => received,
            received = self.neighbour_discovery.receive(MAX_FRAMES, |frame| {
                inbox.add(frame, parse_neighbour_discovery);
            }) => received,
        }
    }
}

/// Messages that wait for the controller.
#[derive(Debug)]
struct Inbox {
    wanted: Arc<WantedNeighbours>,
    round: Mutex<Round>,
    received: Notify,
}

impl Inbox {
    /// Adds the message of a frame, if it is one of a wanted neighbour.
    fn add(&self, frame: ReceivedFrame<'_>, parse: impl FnOnce(&[u8]) -> Option<NeighbourMessage>) {
        let Some(message) = parse(frame.bytes) else {
            return;
        };
        if !self.wanted.contains(&(frame.ifindex, message.address)) {
            return;
        }
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.add(frame.ifindex, message);
        self.received.notify_one();
    }

    /// Takes the messages of the round out.
    fn take(&self) -> Vec<(u32, NeighbourMessage)> {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        round.take()
    }
}

/// Runs the task.
pub(crate) async fn run(agent: Arc<Agent>, sockets: NeighbourSockets) {
    let (wanted, stepped) = {
        let observed = &agent.controller.lock().await.observed;
        let stepped = Arc::clone(&observed.next_hops_stepped);
        (observed.next_hops.wanted(), stepped)
    };
    let inbox = Arc::new(Inbox {
        wanted,
        round: Mutex::default(),
        received: Notify::new(),
    });
    tokio::spawn(receive_all(sockets, Arc::clone(&inbox)));
    let mut next = None;
    loop {
        tokio::select! {
            () = inbox.received.notified() => {}
            () = until(next) => {}
            () = stepped.notified() => {
                next = next_step(&*agent.controller.lock().await);
                continue;
            }
        }
        let messages = inbox.take();
        let step = advance(&agent, &messages).await;
        agent.send_frames(&step.frames);
        next = match step.reconciled {
            Ok(()) => step.next,
            Err(error) => {
                warn!("neighbours: next hops not in the maps yet error=\"{error:#}\"");
                Some(Instant::now() + RETRY_INTERVAL)
            }
        };
        if !messages.is_empty() {
            sleep(MESSAGE_INTERVAL).await;
        }
    }
}

/// Takes frames out of the queues at the rate at which they come, never waiting for the controller: a flood in one
/// network must not displace the messages of others from the queues, which all networks share.
async fn receive_all(sockets: NeighbourSockets, inbox: Arc<Inbox>) {
    loop {
        if let Err(error) = sockets.receive(&inbox).await {
            warn!("neighbours: nothing received error=\"{error}\"");
            sleep(RETRY_INTERVAL).await;
        }
        yield_now().await;
    }
}

/// Outcome of a step.
struct Step {
    /// Frames to be sent.
    frames: Vec<OutgoingFrame>,
    /// Result of the update of the maps.
    reconciled: Result<()>,
    /// Time of the next step.
    next: Option<Instant>,
}

/// Takes over messages and the time that has passed.
async fn advance(agent: &Agent, messages: &[(u32, NeighbourMessage)]) -> Step {
    let mut controller = agent.controller.lock().await;
    tokio::task::block_in_place(|| {
        let now = std::time::Instant::now();
        controller.observe_neighbours(messages, now);
        let (frames, reconciled) = controller.step_next_hops(now);
        Step {
            frames,
            reconciled,
            next: next_step(&controller),
        }
    })
}

/// Returns the time of the next step.
fn next_step(controller: &Controller) -> Option<Instant> {
    let next = controller.observed.next_hops.next_step();
    next.map(Instant::from_std)
}

/// Waits until a time; for ever if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
