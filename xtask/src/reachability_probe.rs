//! Reachability probe: a consumer's host sends datagrams continuously, and a provider's host records their arrival.

use std::{
    fs::File,
    net::UdpSocket,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::run::run_silently;

/// Interval between packets, which is the resolution of the measured times.
const SEND_INTERVAL: Duration = Duration::from_micros(50);

/// MAC address of every interface of the gateway.
const GATEWAY_MAC: &str = "02:00:00:00:00:fe";

/// Time without an arrival after which no packet is in flight.
const QUIET_PERIOD: Duration = Duration::from_millis(5);

/// Maximum wait for a packet.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Sender and receiver.
pub(crate) struct ReachabilityProbe {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
    arrivals: Receiver<Instant>,
}

/// Host: a network namespace with a veth to the gateway's.
pub(crate) struct Host {
    /// Name of the namespace.
    pub(crate) name: &'static str,
    /// Gateway's end of the veth.
    pub(crate) interface: &'static str,
    /// Addresses of the host, with prefix lengths.
    pub(crate) addresses: &'static [&'static str],
}

impl Host {
    /// Creates the host and connects it to the gateway's namespace.
    pub(crate) fn create(&self, gateway: &str) -> Result<()> {
        self.remove();
        let Self {
            name, interface, ..
        } = self;
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "-n {gateway} link add {interface} address {GATEWAY_MAC} type veth peer name eth0 netns {name}"
        ))?;
        for address in self.addresses {
            ip(&format!("-n {name} address add {address} dev eth0"))?;
        }
        // A veth drops redirected frames unless its far end runs NAPI.
        run_silently(
            Command::new("ip").args(["netns", "exec", name, "ethtool", "-K", "eth0", "gro", "on"]),
        )?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {gateway} link set {interface} up"))
    }

    /// Adds a static neighbour entry, so that no packet waits for ARP.
    pub(crate) fn add_neighbour(&self, address: &str) -> Result<()> {
        let name = self.name;
        ip(&format!(
            "-n {name} neighbour add {address} lladdr {GATEWAY_MAC} dev eth0"
        ))
    }

    /// Removes the host, if it exists.
    pub(crate) fn remove(&self) {
        let _gone = ip(&format!("netns delete {}", self.name));
    }

    /// Starts a thread in the host's namespace.
    fn spawn(
        &self,
        body: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<JoinHandle<Result<()>>> {
        let path = format!("/run/netns/{}", self.name);
        let namespace = File::open(&path).with_context(|| format!("{path} can't be opened"))?;
        Ok(thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .context("the network namespace can't be entered")?;
            body()
        }))
    }
}

fn ip(line: &str) -> Result<()> {
    run_silently(Command::new("ip").args(line.split_whitespace())).map(drop)
}

impl ReachabilityProbe {
    /// Starts to send datagrams from the consumer to `target`, and to receive them at a port of the provider.
    ///
    /// # Errors
    /// If a namespace can't be opened.
    pub(crate) fn start(
        consumer: &Host,
        provider: &Host,
        target: (&'static str, u16),
        port: u16,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, arrivals) = channel();
        let (until, also_until) = (Arc::clone(&stop), Arc::clone(&stop));
        let ends = vec![
            provider.spawn(move || receive(port, &sender, &until))?,
            consumer.spawn(move || send(target, &also_until))?,
        ];
        Ok(Self {
            stop,
            threads: ends,
            arrivals,
        })
    }

    /// Discards all arrivals until no packet is in flight.
    ///
    /// # Errors
    /// If packets keep arriving.
    pub(crate) fn discard_arrivals(&self) -> Result<()> {
        let begin = Instant::now();
        while self.arrivals.recv_timeout(QUIET_PERIOD).is_ok() {
            if begin.elapsed() > ARRIVAL_TIMEOUT {
                bail!("packets are still forwarded after the rejection");
            }
        }
        Ok(())
    }

    /// Waits for the next arrival and returns its time.
    ///
    /// # Errors
    /// If no packet arrives in time.
    pub(crate) fn next_arrival(&self) -> Result<Instant> {
        self.arrivals
            .recv_timeout(ARRIVAL_TIMEOUT)
            .context("no packet arrived")
    }

    /// Stops sender and receiver.
    ///
    /// # Errors
    /// If one of them failed.
    pub(crate) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for end in self.threads {
            match end.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    }
}

fn send(target: (&str, u16), stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    while !stop.load(Ordering::Relaxed) {
        // Fails after an ICMP error for an earlier datagram, as expected while the connection is rejected.
        let _refused = socket.send_to(&[0; 32], target);
        thread::sleep(SEND_INTERVAL);
    }
    Ok(())
}

fn receive(port: u16, arrivals: &Sender<Instant>, stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut datagram = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if socket.recv_from(&mut datagram).is_ok() {
            // Fails once the probe is being stopped.
            let _stopping = arrivals.send(Instant::now());
        }
    }
    Ok(())
}
