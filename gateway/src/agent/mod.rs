//! The agent: starts the data path, keeps it in sync with the store and the host, and serves the API.
//! Forwarding does not depend on it: packets are handled as before while the agent is stopped or killed.

pub mod backups;
mod change;
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
    files, former_paths,
    host::dirty_set::HostDirtySet,
    inject::PacketSocket,
    lock::Lock,
    memory,
    model::identity::Authority,
    netlink::{Kernel, Netlink, NetlinkMonitor},
    store::{self, Sqlite, Store as _},
};

/// File name of the store within the state directory.
pub const STORE_FILE: &str = "state.db";

/// Time for which changes are collected after a refresh of the host, before the next one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Delay before flows are collected again that were too young to judge: a little more than one unit of
/// [`gateway_common::flow::CoarseTime`].
const FLOW_RECHECK_DELAY: Duration = Duration::from_millis(1_100);

/// Upper bound of the interval at which address conflicts are read from the data path.
const MAX_PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Interval of full scans of the host. They find what the kernel did not report because its queue overflowed.
const FULL_RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// Delay before a failed refresh of the host is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Shared handles of the running agent, for its tasks and the API.
pub struct Agent {
    /// Desired state, observed state and the data path.
    pub controller: Mutex<Controller>,
    /// Attachments and next hops. The lock admits one refresh of the host at a time.
    host: Mutex<Host>,
    netlink: Netlink,
    kernel: Kernel,
    packet_socket: PacketSocket,
    /// OIDC issuers whose tokens are accepted.
    pub issuers: Issuers,
}

impl Agent {
    /// Sends a frame. A failure is only logged, because receivers must cope with lost frames anyway.
    fn send_frame(&self, ifindex: u32, frame: &[u8]) {
        if let Err(error) = self.packet_socket.send(ifindex, frame) {
            debug!("inject: frame not sent ifindex={ifindex} error=\"{error}\"");
        }
    }
}

/// Resources that were acquired with capabilities that the agent then drops.
pub struct Prepared {
    _lock: Lock,
    socket: api::socket::PreparedSocket,
}

/// Takes the locks and creates the control socket, then drops the capabilities that are no longer needed.
/// Must be called before threads are started, because capabilities belong to a thread.
///
/// # Errors
/// When the process is not root, an agent runs already, or a file or the control socket can't be prepared.
pub fn prepare(config: &Config) -> Result<Prepared> {
    // SAFETY: the call takes no arguments and returns a number.
    if unsafe { libc::geteuid() } != 0 {
        bail!(
            "the agent is not root: start it as root, because it loads a program into the kernel"
        );
    }
    memory::configure();
    capabilities::raise_descriptor_limit();
    former_paths::check(&config.state_dir, &config.bpf_dir)?;
    let lock = Lock::for_agent(&config.state_dir, &config.bpf_dir, &config.run_dir)?;
    files::check_store(&config.state_dir.join(STORE_FILE))?;
    let socket = api::socket::prepare(&config.socket(), &config.socket_group)?;
    capabilities::drop_capabilities()?;
    Ok(Prepared {
        _lock: lock,
        socket,
    })
}

/// Runs the agent until SIGTERM or SIGINT. The data path stays in place after that.
///
/// # Errors
/// When the agent can't start; the message says what to do.
pub async fn run(config: Config, prepared: Prepared) -> Result<()> {
    let kernel = Kernel::running()?;
    // Before the store is migrated: if this version may not start, the earlier one must still be able to.
    loader::check_other_layouts(&config.bpf_dir, config.discard_incompatible_flows)?;
    let store = Sqlite::open(&config.state_dir.join(STORE_FILE))?;
    let parameters = LoadParameters {
        seed: store.seed()?,
        rejects_per_second: config.rejects_per_second,
        log_packets: config.log_packets,
    };
    // Loading the program waits for the kernel, and loading the store uses this process, so both run at once.
    let bpf_dir = config.bpf_dir.clone();
    let loading = tokio::task::spawn_blocking(move || Program::load(&bpf_dir, parameters));
    let loaded = tokio::task::block_in_place(|| store::load(&store));
    let (mut program, maps) = loading.await?.context("failed to load the data path")?;
    let loaded = loaded.context(
        "failed to load the store: replace it by a backup with `plgw restore --offline FILE`; \
         approved connections carry traffic meanwhile",
    )?;
    if config.log_packets {
        spawn_packet_log(program.logger()?)?;
    }
    let info = program.info()?;
    info!(
        "bpf: program loaded id={} machine_code_bytes={}{}",
        info.id,
        info.machine_code_bytes,
        info.verified_instructions
            .map(|count| format!(" verified_instructions={count}"))
            .unwrap_or_default()
    );
    let netlink = Netlink::connect().context("failed to open a netlink socket")?;
    let watch = NetlinkMonitor::start().context("failed to subscribe to netlink events")?;
    let flow_gc = FlowGc::new(FlowTables::new(&maps)?);
    let controller = Controller::new(loaded, Box::new(store), &config, program, maps)?;
    let agent = Arc::new(Agent {
        controller: Mutex::new(controller),
        host: Mutex::new(Host::new(config.accept_unseen_vlan_tags)),
        netlink,
        kernel,
        packet_socket: PacketSocket::open().context("failed to open a packet socket")?,
        issuers: Issuers::new(&config.oidc_issuers, config.outbound_ca.as_ref())?,
    });
    // The maps hold the stored state before the first request is accepted.
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
    info!("agent: ready socket={}", config.socket().display());
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
        _ = terminate.recv() => info!("agent: stopping signal=SIGTERM data_path=kept"),
        _ = interrupt.recv() => info!("agent: stopping signal=SIGINT data_path=kept"),
    }
    // The lock waits for a change in progress, and is kept, so that no other change begins.
    let controller = agent.controller.lock().await;
    controller.checkpoint();
    std::mem::forget(controller);
    Ok(())
}

/// Sets the authorities whose client certificates are accepted, and warns of identities that no certificate can
/// match.
async fn accept_authorities(agent: &Agent, authorities: Vec<Authority>) {
    let mut controller = agent.controller.lock().await;
    for (reference, record) in &controller.state.identities {
        let claim = &record.object.claim;
        if record.object.lacks_authority() {
            warn!(
                "auth: identity {reference} names no authority, so no certificate matches it: delete it, \
                 and create it with --authority"
            );
        } else if let Some(authority) = &claim.authority
            && !authorities.contains(authority)
        {
            warn!(
                "auth: identity {reference} names an authority that tls_client_ca does not contain, so no \
                 certificate matches it: add the authority with key_sha256={}, or delete the identity",
                authority.key_sha256
            );
        }
    }
    controller.set_authorities(authorities);
}

/// Refreshes the host after netlink events, after a failure, and in full at [`FULL_RESYNC_INTERVAL`].
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
            warn!("host sync: failed error=\"{error:#}\"");
        }
        sleep(DEBOUNCE).await;
    }
}

/// Collects expired flows at an interval, and at once after a revocation. Terminates both ends of revoked flows.
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
                warn!("flow gc: failed error=\"{error:#}\"");
                continue;
            }
        };
        if report.removed > 0 {
            debug!("flow gc: entries removed count={}", report.removed);
        }
        if !report.terminations.is_empty() {
            info!(
                "flow gc: terminating TCP flows ends={}",
                report.terminations.len()
            );
        }
        tokio::task::block_in_place(|| {
            // All resets go first, so that answers to the challenge ACK probes do not wait behind other flows' resets.
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
            warn!("flow gc: usage not corrected error=\"{error:#}\"");
        }
    }
}

/// Probes for other users of endpoints' addresses, and announces and defends the addresses (RFC 5227).
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
                    warn!("address conflict: detection failed error=\"{error:#}\"");
                    continue;
                }
            }
        };
        for (ifindex, frame) in frames {
            agent.send_frame(ifindex, &frame);
        }
    }
}

/// Forwards the log messages of the XDP program to this process's log.
fn spawn_packet_log(logger: aya_log::EbpfLogger<&'static dyn log::Log>) -> Result<()> {
    // SAFETY: the logger owns the descriptor of its ring buffer, and returns the same one until it is dropped.
    let mut logger = unsafe { tokio::io::unix::AsyncFd::register(logger) }?;
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
