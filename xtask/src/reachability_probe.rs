//! Whether packets go through, seen from both ends: a consumer's host that sends without pause, and a
//! provider's that notes when something arrives.

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

/// Between one packet and the next: what a time is exact to.
const SEND_INTERVAL: Duration = Duration::from_micros(50);

/// The gateway's hardware address, on every interface.
const GATEWAY_MAC: &str = "02:00:00:00:00:fe";

/// How long nothing must arrive, for it to be sure that nothing is on its way.
const QUIET_PERIOD: Duration = Duration::from_millis(5);

/// How long a packet is waited for.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Both ends.
pub(crate) struct ReachabilityProbe {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
    arrivals: Receiver<Instant>,
}

/// A host: a network namespace beside the gateway's.
pub(crate) struct Host {
    /// Its name.
    pub(crate) name: &'static str,
    /// The gateway's interface towards it.
    pub(crate) interface: &'static str,
    /// Its own addresses, with their prefixes.
    pub(crate) addresses: &'static [&'static str],
}

impl Host {
    /// Makes it, and connects it to the gateway's namespace.
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

    /// Tells it where an address is, so that no packet waits for an answer to ARP.
    pub(crate) fn add_neighbour(&self, address: &str) -> Result<()> {
        let name = self.name;
        ip(&format!(
            "-n {name} neighbour add {address} lladdr {GATEWAY_MAC} dev eth0"
        ))
    }

    /// Removes it, if it is there.
    pub(crate) fn remove(&self) {
        let _gone = ip(&format!("netns delete {}", self.name));
    }

    /// Does something there, in a thread of its own.
    fn spawn(
        &self,
        body: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<JoinHandle<Result<()>>> {
        let path = format!("/run/netns/{}", self.name);
        let namespace = File::open(&path).with_context(|| format!("could not open {path}"))?;
        Ok(thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("could not enter a namespace")?;
            body()
        }))
    }
}

fn ip(line: &str) -> Result<()> {
    run_silently(Command::new("ip").args(line.split_whitespace())).map(drop)
}

impl ReachabilityProbe {
    /// Sends datagrams from one host to `target`, and looks for them at a port of the other.
    ///
    /// # Errors
    /// When a namespace can't be entered.
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

    /// Forgets what has arrived, and what was on its way.
    ///
    /// # Errors
    /// When packets do not cease to arrive.
    pub(crate) fn discard_arrivals(&self) -> Result<()> {
        let begin = Instant::now();
        while self.arrivals.recv_timeout(QUIET_PERIOD).is_ok() {
            if begin.elapsed() > ARRIVAL_TIMEOUT {
                bail!("packets go through that should not");
            }
        }
        Ok(())
    }

    /// When the next packet arrives that has not been forgotten.
    ///
    /// # Errors
    /// When none does.
    pub(crate) fn next_arrival(&self) -> Result<Instant> {
        self.arrivals
            .recv_timeout(ARRIVAL_TIMEOUT)
            .context("no packet arrives")
    }

    /// Ends both.
    ///
    /// # Errors
    /// What went wrong at one of the ends.
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
        // A refusal of an earlier one is reported here, and is what is waited to end.
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
            // Nobody listens any more once both are being stopped.
            let _stopping = arrivals.send(Instant::now());
        }
    }
    Ok(())
}
