//! The agent: starts the data path, keeps it in step with the store and the host, and serves the
//! API. The data path does not need it: killed at any moment, packets go on as before.

mod addresses;
pub mod backups;
pub mod core;
pub mod deliveries;
pub mod detection;
pub mod duties;
pub mod flows;
pub mod health;
pub mod host;
pub mod journal;
pub mod requests;
pub mod sight;
pub mod standings;
pub mod sweep;
mod tags;
pub mod ways;
pub mod webhooks;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use log::{debug, info, warn};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    time::{MissedTickBehavior, interval, interval_at, sleep},
};

use crate::{
    agent::{
        core::Core,
        host::Host,
        sight::Sight,
        sweep::{Snapshot, Sweeper},
    },
    api,
    auth::oidc::Issuers,
    config::Config,
    dataplane::{
        flow_tables::FlowTables,
        program::{self, Parameters, Program},
    },
    files,
    lock::Lock,
    memory,
    model::identity::Authority,
    netlink::{Kernel, Netlink, Watch},
    privileges,
    store::{self, Sqlite, Store as _},
    wire::Sender,
};

/// The store's file within the state directory.
pub const STORE: &str = "state.db";

/// After the host has been looked at, changes are gathered for so long before it is looked at again.
const GATHER: Duration = Duration::from_millis(100);

/// A little more than a tick of the data path's clock.
const A_TICK: Duration = Duration::from_millis(1_100);

/// Conflicts over addresses are looked for at least so often.
const LONGEST_TURN: Duration = Duration::from_millis(500);

/// What the kernel has not told of, since it had too much to tell, is seen after so long.
const LOOK_AT_ALL: Duration = Duration::from_secs(60);

/// How long to wait before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The running agent, shared by its tasks and the API.
pub struct Agent {
    /// State, store and maps.
    pub core: Mutex<Core>,
    /// Only one looks at the host at a time.
    host: Mutex<Host>,
    netlink: Netlink,
    kernel: Kernel,
    sender: Sender,
    /// Who is trusted to say who asks.
    pub issuers: Issuers,
}

impl Agent {
    /// Sends a frame. One that is lost is no worse than one that the network loses.
    fn send(&self, ifindex: u32, frame: &[u8]) {
        if let Err(error) = self.sender.send(ifindex, frame) {
            debug!("interface {ifindex} did not take a frame: {error}");
        }
    }
}

/// What the agent has in hand that takes more rights than it keeps.
pub struct Prepared {
    _lock: Lock,
    socket: api::socket::Prepared,
}

/// Takes the locks and makes the control socket, and then gives up what of root's rights is not needed.
/// Threads must not have been started yet: each has its own.
///
/// # Errors
/// When the agent may not run here, or runs already.
pub fn prepare(config: &Config) -> Result<Prepared> {
    // SAFETY: takes nothing, returns a number.
    if unsafe { libc::geteuid() } != 0 {
        bail!("the agent must run as root: it loads a program into the kernel");
    }
    memory::configure();
    privileges::raise_descriptor_limit();
    let lock = Lock::for_agent(config)?;
    files::check_store(&config.state_dir.join(STORE))?;
    let socket = api::socket::prepare(&config.socket(), &config.socket_group)?;
    privileges::give_up()?;
    Ok(Prepared {
        _lock: lock,
        socket,
    })
}

/// Runs the agent until it is told to stop. The data path stays as it is then.
///
/// # Errors
/// When it can't start; the message says what to do.
pub async fn run(config: Config, prepared: Prepared) -> Result<()> {
    let kernel = Kernel::running()?;
    // Before the store is brought up to date: the program of before must be able to go on if this one may not.
    program::check_other_layouts(&config.bpf_dir, config.end_flows)?;
    let store = Sqlite::open(&config.state_dir.join(STORE))?;
    let parameters = Parameters {
        seed: store.seed()?,
        refusals_per_second: config.refusals_per_second,
        log_packets: config.log_packets,
    };
    // The one takes the kernel some time, the other this process.
    let bpf_dir = config.bpf_dir.clone();
    let loading = tokio::task::spawn_blocking(move || Program::load(&bpf_dir, parameters));
    let loaded = tokio::task::block_in_place(|| store::load(&store));
    let (mut program, maps) = loading.await?.context("could not start the data path")?;
    let loaded = loaded.context(
        "the store can't be used: put a backup in its place with `gateway restore --offline FILE`; \
         what is approved goes on meanwhile",
    )?;
    if config.log_packets {
        log_packets(program.logger()?)?;
    }
    let info = program.info()?;
    info!(
        "XDP program {} loaded: {} bytes of machine code{}",
        info.id,
        info.machine_code_bytes,
        info.verified_instructions
            .map(|count| format!(", {count} instructions verified"))
            .unwrap_or_default()
    );
    let netlink = Netlink::connect().context("could not talk to the kernel by netlink")?;
    let watch = Watch::begin().context("could not watch the host's interfaces")?;
    let sweeper = Sweeper::new(FlowTables::new(&maps)?);
    let core = Core::new(loaded, Box::new(store), &config, program, maps)?;
    let agent = Arc::new(Agent {
        core: Mutex::new(core),
        host: Mutex::new(Host::new(config.accept_unseen_vlan_tags)),
        netlink,
        kernel,
        sender: Sender::open().context("could not open a socket for frames")?,
        issuers: Issuers::new(&config.oidc_issuers, config.outside_ca.as_ref())?,
    });
    // What the store says is in force before the first request is taken.
    agent.look().await?;
    program::remove_other_layouts(&config.bpf_dir)?;

    let caller = webhooks::Caller::new(&config)?;
    let tls = match &config.tls {
        Some(settings) => Some(api::tls::Listener::open(settings).await?),
        None => None,
    };
    let authorities = tls.as_ref().map(api::tls::Listener::authorities);
    accept_authorities(&agent, authorities.unwrap_or_default()).await;
    let Prepared { _lock, socket } = prepared;
    let listener = socket.publish()?;
    info!("ready: {}", config.socket().display());
    tokio::spawn(keep_in_step(Arc::clone(&agent), watch));
    tokio::spawn(sweep(
        Arc::clone(&agent),
        sweeper,
        Duration::from_secs(config.sweep_interval),
    ));
    let turns = config.probing.interval.min(LONGEST_TURN);
    tokio::spawn(detect(Arc::clone(&agent), turns));
    tokio::spawn(health::run(Arc::clone(&agent)));
    tokio::spawn(webhooks::run(Arc::clone(&agent), caller));
    let admission = api::Admission::new(&config.api_limits);
    if let Some(tls) = tls {
        tokio::spawn(api::tls::serve(
            tls,
            Arc::clone(&agent),
            Arc::clone(&admission),
        ));
    }
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        () = api::socket::serve(listener, Arc::clone(&agent), admission) => {}
        _ = terminate.recv() => info!("told to stop: connections stay as they are"),
        _ = interrupt.recv() => info!("interrupted: connections stay as they are"),
    }
    // A change that is under way is finished; no other begins.
    let core = agent.core.lock().await;
    core.settle();
    std::mem::forget(core);
    Ok(())
}

/// Takes in which authorities' client certificates are accepted, and warns of identities that nobody can meet.
async fn accept_authorities(agent: &Agent, authorities: Vec<Authority>) {
    let mut core = agent.core.lock().await;
    for (reference, record) in &core.state.identities {
        let claim = &record.object.claim;
        if record.object.lacks_authority() {
            warn!(
                "identity {reference} names no authority, so no certificate meets it: delete it, \
                 and create it with --authority"
            );
        } else if let Some(authority) = &claim.authority
            && !authorities.contains(authority)
        {
            warn!(
                "identity {reference} names an authority that tls_client_ca does not hold, so no \
                 certificate meets it: add the authority with key_sha256={}, or delete the identity",
                authority.key_sha256
            );
        }
    }
    core.set_authorities(authorities);
}

/// Looks at what the kernel tells of, at everything from time to time, and again after a failure.
async fn keep_in_step(agent: Arc<Agent>, watch: Watch) {
    let mut all = interval_at(tokio::time::Instant::now() + LOOK_AT_ALL, LOOK_AT_ALL);
    all.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let again = {
            let core = agent.core.lock().await;
            !core.in_step() || !core.sight.is_empty()
        };
        tokio::select! {
            news = watch.news() => {
                let core = &mut *agent.core.lock().await;
                core.sight.add_news(news, &core.observed);
            }
            _ = all.tick() => agent.core.lock().await.sight = Sight::everything(),
            () = sleep(RETRY), if again => {}
        }
        if let Err(error) = agent.look().await {
            warn!("could not bring the data path into step with the host: {error:#}");
        }
        sleep(GATHER).await;
    }
}

/// Removes idle flows from time to time, and tells both ends of flows that were cut at once.
async fn sweep(agent: Arc<Agent>, mut sweeper: Sweeper, every: Duration) {
    let cut = Arc::clone(&agent.core.lock().await.cut);
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = cut.notified() => {}
        }
        let mut snapshot = Snapshot::of(&*agent.core.lock().await);
        let swept = tokio::task::block_in_place(|| sweeper.count_and_sweep(&mut snapshot));
        let swept = match swept {
            Ok(swept) => swept,
            Err(error) => {
                warn!("could not go through the flows: {error:#}");
                continue;
            }
        };
        if swept.removed > 0 {
            debug!("{} entries of idle flows removed", swept.removed);
        }
        if !swept.endings.is_empty() {
            info!(
                "telling {} ends of connections that are over",
                swept.endings.len()
            );
        }
        tokio::task::block_in_place(|| {
            // First all resets, so that the answers to the questions are not behind others' resets.
            for (ifindex, ending) in &swept.endings {
                agent.send(*ifindex, &ending.reset());
            }
            for (ifindex, ending) in &swept.endings {
                agent.send(*ifindex, &ending.question());
            }
        });
        if swept.again {
            let cut = Arc::clone(&cut);
            tokio::spawn(async move {
                sleep(A_TICK).await;
                cut.notify_one();
            });
        }
        let mut core = agent.core.lock().await;
        if let Err(error) = tokio::task::block_in_place(|| core.account(&snapshot, swept)) {
            warn!("could not correct what connections use: {error:#}");
        }
    }
}

/// Finds out whether endpoints' addresses are free, and tells their networks of them.
async fn detect(agent: Arc<Agent>, every: Duration) {
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let frames = {
            let mut core = agent.core.lock().await;
            match tokio::task::block_in_place(|| core.detect(Instant::now())) {
                Ok(frames) => frames,
                Err(error) => {
                    warn!("could not look after endpoints' addresses: {error:#}");
                    continue;
                }
            }
        };
        for (ifindex, frame) in frames {
            agent.send(ifindex, &frame);
        }
    }
}

/// Forwards what the program logs.
fn log_packets(logger: aya_log::EbpfLogger<&'static dyn log::Log>) -> Result<()> {
    // SAFETY: the logger owns its ring buffer's descriptor and gives out that same one until it is
    // dropped.
    let mut logger = unsafe { tokio::io::unix::AsyncFd::register(logger) }?;
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
