//! The daemon: takes locks and capabilities, loads the data path and the store, starts tasks and servers, and shuts
//! down. It is the composition root: it knows every part of the agent, and no part knows it.

pub mod check;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use log::{info, warn};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Mutex,
};

use crate::{
    agent::{
        Agent,
        controller::Controller,
        flow_gc::FlowGc,
        tasks::{
            self, neighbours::NeighbourSockets, packet_log::LimitedLog,
            webhook_sender::WebhookSender,
        },
    },
    api,
    auth::oidc::Issuers,
    bpf::{
        layouts,
        loader::{LoadParameters, Program},
        maps::Maps,
    },
    capabilities,
    config::Config,
    files, former_paths,
    host::Host,
    inject::PacketSocket,
    lock::Lock,
    memory,
    model::identity::Authority,
    netlink::{Kernel, Netlink, NetlinkMonitor},
    receive::ReceiveSocket,
    store::{self, STORE_FILE, Sqlite, Store as _, StoreContents},
};

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
    layouts::check_others(&config.bpf_dir, config.discard_incompatible_flows)?;
    let store = Sqlite::open(&config.state_dir.join(STORE_FILE))?;
    let (loaded, mut program, maps) = load(&config, &store).await?;
    let mut packet_log = None;
    if config.log_packets {
        packet_log = Some(program.take_packet_log()?);
        let logger = program.take_program_log(LimitedLog::default())?;
        tasks::packet_log::spawn_program_log(logger)?;
    }
    program.count_transmit_failures();
    log_program(&program)?;
    let mld_queries = ReceiveSocket::open().context("failed to open a packet socket")?;
    let netlink = Netlink::connect().context("failed to open a netlink socket")?;
    let monitor = NetlinkMonitor::start()
        .await
        .context("failed to subscribe to netlink events")?;
    let flow_tables = maps.flow_tables().clone();
    let flow_gc = FlowGc::new(flow_tables.clone());
    let controller = Controller::new(loaded, Box::new(store), &config, program, maps)?;
    let agent = Arc::new(Agent {
        controller: Mutex::new(controller),
        host: Mutex::new(Host::new(config.accept_unseen_vlan_tags)),
        netlink,
        kernel,
        packet_socket: PacketSocket::open().context("failed to open a packet socket")?,
        issuers: Issuers::new(&config.oidc_issuers, config.outbound_ca.as_ref())?,
    });
    if let Some(packet_log) = packet_log {
        tasks::packet_log::spawn(Arc::clone(&agent), packet_log)?;
    }
    // Before the first solicitation is sent, so that no answer is missed.
    let sockets = NeighbourSockets::open()?;
    // The maps hold the stored state before the first request is accepted.
    agent.refresh_host().await?;
    agent
        .controller
        .lock()
        .await
        .finish_migration(&flow_tables)?;
    layouts::remove_others(&config.bpf_dir)?;

    let sender = WebhookSender::new(&config)?;
    let tls = match &config.tls {
        Some(settings) => Some(api::tls::Listener::open(settings).await?),
        None => None,
    };
    let authorities = tls.as_ref().map(api::tls::Listener::authorities);
    accept_authorities(&agent, authorities.unwrap_or_default()).await;
    let Prepared { _lock, socket } = prepared;
    let listener = socket.publish()?;
    info!("agent: ready socket={}", config.socket().display());
    tokio::spawn(tasks::neighbours::run(Arc::clone(&agent), sockets));
    spawn_tasks(&agent, &config, monitor, flow_gc, sender);
    tokio::spawn(tasks::multicast_listener::run(
        Arc::clone(&agent),
        mld_queries,
    ));
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

/// Loads the data path and the store. Loading the program waits for the kernel, and loading the store uses this
/// process, so both run at once.
async fn load(config: &Config, store: &Sqlite) -> Result<(StoreContents, Program, Maps)> {
    let parameters = LoadParameters {
        seed: store.seed()?,
        rejects_per_second: config.rejects_per_second,
        log_packets: config.log_packets,
        flow_table_size: config.flow_table_size,
        flow_table_share: config.flow_table_share,
    };
    let bpf_dir = config.bpf_dir.clone();
    let loading = tokio::task::spawn_blocking(move || Program::load(&bpf_dir, parameters));
    let loaded = tokio::task::block_in_place(|| store::load(store));
    let (program, maps) = loading.await?.context("failed to load the data path")?;
    let loaded = loaded.context(
        "failed to load the store: replace it by a backup with `plgw restore --offline FILE`; \
         approved connections carry traffic meanwhile",
    )?;
    Ok((loaded, program, maps))
}

fn log_program(program: &Program) -> Result<()> {
    let info = program.info()?;
    info!(
        "bpf: program loaded id={} machine_code_bytes={}{}",
        info.id,
        info.machine_code_bytes,
        info.verified_instructions
            .map(|count| format!(" verified_instructions={count}"))
            .unwrap_or_default()
    );
    Ok(())
}

fn spawn_tasks(
    agent: &Arc<Agent>,
    config: &Config,
    monitor: NetlinkMonitor,
    flow_gc: FlowGc,
    sender: WebhookSender,
) {
    let flow_gc_interval = Duration::from_secs(config.flow_gc_interval);
    tokio::spawn(tasks::host_sync::run(Arc::clone(agent), monitor));
    tokio::spawn(tasks::flow_gc::run(
        Arc::clone(agent),
        flow_gc,
        flow_gc_interval,
    ));
    tokio::spawn(tasks::address_probe::run(Arc::clone(agent), config.probing));
    tokio::spawn(tasks::health_check::run(Arc::clone(agent)));
    tokio::spawn(tasks::traffic::run(Arc::clone(agent)));
    tokio::spawn(tasks::webhook_sender::run(Arc::clone(agent), sender));
}

/// Sets the authorities whose client certificates are accepted, and warns of identities that no certificate can
/// match.
async fn accept_authorities(agent: &Agent, authorities: Vec<Authority>) {
    let mut controller = agent.controller.lock().await;
    for (reference, record) in &controller.state().identities {
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
