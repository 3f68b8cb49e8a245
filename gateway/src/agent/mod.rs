//! The agent: starts the data path, keeps it in step with the store and the host, and serves the
//! API. The data path does not need it: killed at any moment, packets go on as before.

pub mod backups;
pub mod connection_index;
pub mod controller;
pub mod duties;
pub mod flow_list;
pub mod host;
pub mod tasks;

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
        controller::Controller,
        host::Host,
        tasks::flow_gc::{FlowGc, GcSnapshot},
    },
    api,
    auth::oidc::Issuers,
    bpf::{
        flow_tables::FlowTables,
        loader::{self, LoadParameters, Program},
    },
    capabilities,
    config::Config,
    files,
    host::dirty_set::HostDirtySet,
    inject::PacketSocket,
    lock::Lock,
    memory,
    model::identity::Authority,
    netlink::{Kernel, Netlink, NetlinkMonitor},
    store::{self, Sqlite, Store as _},
};

/// The store's file within the state directory.
pub const STORE_FILE: &str = "state.db";

/// After the host has been looked at, changes are gathered for so long before it is looked at again.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A little more than a tick of the data path's clock.
const FLOW_RECHECK_DELAY: Duration = Duration::from_millis(1_100);

/// Conflicts over addresses are looked for at least so often.
const MAX_PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// What the kernel has not told of, since it had too much to tell, is seen after so long.
const FULL_RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// How long to wait before something that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// The running agent, shared by its tasks and the API.
pub struct Agent {
    /// State, store and maps.
    pub controller: Mutex<Controller>,
    /// Only one looks at the host at a time.
    host: Mutex<Host>,
    netlink: Netlink,
    kernel: Kernel,
    packet_socket: PacketSocket,
    /// Who is trusted to say who asks.
    pub issuers: Issuers,
}

impl Agent {
    /// Sends a frame. One that is lost is no worse than one that the network loses.
    fn send_frame(&self, ifindex: u32, frame: &[u8]) {
        if let Err(error) = self.packet_socket.send(ifindex, frame) {
            debug!("interface {ifindex} did not take a frame: {error}");
        }
    }
}

/// What the agent has in hand that takes more rights than it keeps.
pub struct Prepared {
    _lock: Lock,
    socket: api::socket::PreparedSocket,
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
    capabilities::raise_descriptor_limit();
    let lock = Lock::for_agent(config)?;
    files::check_store(&config.state_dir.join(STORE_FILE))?;
    let socket = api::socket::prepare(&config.socket(), &config.socket_group)?;
    capabilities::drop_capabilities()?;
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
    loader::check_other_layouts(&config.bpf_dir, config.discard_incompatible_flows)?;
    let store = Sqlite::open(&config.state_dir.join(STORE_FILE))?;
    let parameters = LoadParameters {
        seed: store.seed()?,
        rejects_per_second: config.rejects_per_second,
        log_packets: config.log_packets,
    };
    // The one takes the kernel some time, the other this process.
    let bpf_dir = config.bpf_dir.clone();
    let loading = tokio::task::spawn_blocking(move || Program::load(&bpf_dir, parameters));
    let loaded = tokio::task::block_in_place(|| store::load(&store));
    let (mut program, maps) = loading.await?.context("could not start the data path")?;
    let loaded = loaded.context(
        "the store can't be used: put a backup in its place with `plgw restore --offline FILE`; \
         what is approved goes on meanwhile",
    )?;
    if config.log_packets {
        spawn_packet_log(program.logger()?)?;
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
    let watch = NetlinkMonitor::start().context("could not watch the host's interfaces")?;
    let flow_gc = FlowGc::new(FlowTables::new(&maps)?);
    let controller = Controller::new(loaded, Box::new(store), &config, program, maps)?;
    let agent = Arc::new(Agent {
        controller: Mutex::new(controller),
        host: Mutex::new(Host::new(config.accept_unseen_vlan_tags)),
        netlink,
        kernel,
        packet_socket: PacketSocket::open().context("could not open a socket for frames")?,
        issuers: Issuers::new(&config.oidc_issuers, config.outbound_ca.as_ref())?,
    });
    // What the store says is in force before the first request is taken.
    agent.refresh_host().await?;
    loader::remove_other_layouts(&config.bpf_dir)?;

    let sender = tasks::webhook_sender::WebhookSender::new(&config)?;
    let tls = match &config.tls {
        Some(settings) => Some(api::tls::Listener::open(settings).await?),
        None => None,
    };
    let authorities = tls.as_ref().map(api::tls::Listener::authorities);
    accept_authorities(&agent, authorities.unwrap_or_default()).await;
    let Prepared { _lock, socket } = prepared;
    let listener = socket.publish()?;
    info!("ready: {}", config.socket().display());
    tokio::spawn(host_sync_loop(Arc::clone(&agent), watch));
    tokio::spawn(flow_gc_loop(
        Arc::clone(&agent),
        flow_gc,
        Duration::from_secs(config.flow_gc_interval),
    ));
    let probe_interval = config.probing.interval.min(MAX_PROBE_INTERVAL);
    tokio::spawn(address_conflict_loop(Arc::clone(&agent), probe_interval));
    tokio::spawn(tasks::health_check::run(Arc::clone(&agent)));
    tokio::spawn(tasks::webhook_sender::run(Arc::clone(&agent), sender));
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
    let controller = agent.controller.lock().await;
    controller.checkpoint();
    std::mem::forget(controller);
    Ok(())
}

/// Takes in which authorities' client certificates are accepted, and warns of identities that nobody can meet.
async fn accept_authorities(agent: &Agent, authorities: Vec<Authority>) {
    let mut controller = agent.controller.lock().await;
    for (reference, record) in &controller.state.identities {
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
    controller.set_authorities(authorities);
}

/// Looks at what the kernel tells of, at everything from time to time, and again after a failure.
async fn host_sync_loop(agent: Arc<Agent>, watch: NetlinkMonitor) {
    let mut full_resync = interval_at(
        tokio::time::Instant::now() + FULL_RESYNC_INTERVAL,
        FULL_RESYNC_INTERVAL,
    );
    full_resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let needs_retry = {
            let controller = agent.controller.lock().await;
            !controller.in_sync() || !controller.host_dirty.is_empty()
        };
        tokio::select! {
            events = watch.recv() => {
                let controller = &mut *agent.controller.lock().await;
                controller.host_dirty.add_events(events, &controller.observed);
            }
            _ = full_resync.tick() => agent.controller.lock().await.host_dirty = HostDirtySet::resync_all(),
            () = sleep(RETRY_INTERVAL), if needs_retry => {}
        }
        if let Err(error) = agent.refresh_host().await {
            warn!("could not bring the data path into step with the host: {error:#}");
        }
        sleep(DEBOUNCE).await;
    }
}

/// Removes idle flows from time to time, and tells both ends of flows that were cut at once.
async fn flow_gc_loop(agent: Arc<Agent>, mut flow_gc: FlowGc, every: Duration) {
    let flows_revoked = Arc::clone(&agent.controller.lock().await.flows_revoked);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = flows_revoked.notified() => {}
        }
        let mut snapshot = GcSnapshot::from_controller(&*agent.controller.lock().await);
        let result = tokio::task::block_in_place(|| flow_gc.count_and_collect(&mut snapshot));
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                warn!("could not go through the flows: {error:#}");
                continue;
            }
        };
        if report.removed > 0 {
            debug!("{} entries of idle flows removed", report.removed);
        }
        if !report.terminations.is_empty() {
            info!(
                "telling {} ends of connections that are over",
                report.terminations.len()
            );
        }
        tokio::task::block_in_place(|| {
            // First all resets, so that the answers to the questions are not behind others' resets.
            for (ifindex, termination) in &report.terminations {
                agent.send_frame(*ifindex, &termination.reset());
            }
            for (ifindex, termination) in &report.terminations {
                agent.send_frame(*ifindex, &termination.challenge_ack_probe());
            }
        });
        if report.needs_recheck {
            let flows_revoked = Arc::clone(&flows_revoked);
            tokio::spawn(async move {
                sleep(FLOW_RECHECK_DELAY).await;
                flows_revoked.notify_one();
            });
        }
        let mut controller = agent.controller.lock().await;
        if let Err(error) =
            tokio::task::block_in_place(|| controller.account_usage(&snapshot, report))
        {
            warn!("could not correct what connections use: {error:#}");
        }
    }
}

/// Finds out whether endpoints' addresses are free, and tells their networks of them.
async fn address_conflict_loop(agent: Arc<Agent>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let frames = {
            let mut controller = agent.controller.lock().await;
            match tokio::task::block_in_place(|| controller.step_conflict_detection(Instant::now()))
            {
                Ok(frames) => frames,
                Err(error) => {
                    warn!("could not look after endpoints' addresses: {error:#}");
                    continue;
                }
            }
        };
        for (ifindex, frame) in frames {
            agent.send_frame(ifindex, &frame);
        }
    }
}

/// Forwards what the program logs.
fn spawn_packet_log(logger: aya_log::EbpfLogger<&'static dyn log::Log>) -> Result<()> {
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
