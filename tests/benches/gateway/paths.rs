//! Whole paths, from one host to another: the gateway beside what Linux has.

use serde::Serialize;

use crate::{
    baselines::{Forwarder, gateway, haproxy, nftables, wire},
    traffic::{Mix, Pacing},
};

/// Packets of known flows that are sent in a round.
const PACKETS: u32 = 1_000_000;
/// Packets that each open a flow: the kernel's connection tracking has room for not many more.
const NEW: u32 = 60_000;
/// Of how many rounds the best counts.
const ROUNDS: u32 = 5;
/// Seconds of TCP.
const SECONDS: u32 = 3;

/// What was measured of one.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// What it is.
    pub(crate) name: &'static str,
    /// Packets a second of known flows.
    pub(crate) packets: Option<f64>,
    /// Packets a second, each of which opens a flow.
    pub(crate) new_flows: Option<f64>,
    /// Packets of these that were lost.
    pub(crate) lost: u64,
    /// Microseconds on the way of 500, 990 and 999 in 1,000 packets, when they come in bursts.
    pub(crate) microseconds: Option<[f64; 3]>,
    /// The same when they come one by one.
    pub(crate) microseconds_alone: Option<[f64; 3]>,
    /// Connections a second: opened, asked, answered, closed.
    pub(crate) connections: Option<f64>,
    /// Connections that failed.
    pub(crate) failed: u64,
    /// TCP's throughput with one stream and with four, in bits a second.
    pub(crate) throughput: Option<[f64; 2]>,
}

impl Figures {
    /// Nanoseconds that a packet takes more than on the path with nothing in it.
    pub(crate) fn net_of(&self, wire: &Self) -> Option<f64> {
        Some(1e9 / self.packets? - 1e9 / wire.packets?)
    }
}

/// Measures all.
pub(crate) fn measure() -> Vec<Figures> {
    let mut all = Vec::new();
    for make in [wire, nftables, gateway, haproxy] {
        let forwarder = make();
        eprintln!("==> {}", forwarder.name);
        all.push(measure_forwarder(&forwarder));
    }
    // Half of what the slower one can do.
    let packets = all.iter().filter_map(|figures| figures.packets);
    let half = packets.fold(f64::INFINITY, f64::min) / 2.0;
    for (make, name) in [
        (wire as fn() -> Forwarder, "wire"),
        (nftables, "nftables"),
        (gateway, "gateway"),
    ] {
        eprintln!("==> times of {name}");
        let contender = make();
        let [bursts, alone] = [Pacing::Bursts, Pacing::Single]
            .map(|arrivals| contender.measure_latencies(arrivals, half));
        let figures = all.iter_mut().find(|figures| figures.name == name);
        let figures = figures.expect("it was measured");
        figures.microseconds = Some(bursts);
        figures.microseconds_alone = Some(alone);
    }
    all
}

fn measure_forwarder(forwarder: &Forwarder) -> Figures {
    let mut figures = Figures {
        name: forwarder.name,
        ..Figures::default()
    };
    if forwarder.name != "haproxy" {
        let known = forwarder.measure_packet_rate(Mix::Known, PACKETS, ROUNDS);
        figures.packets = Some(known.per_second);
        figures.lost = known.lost;
    }
    if forwarder.name == "wire" {
        return figures;
    }
    let connections = forwarder.measure_connections(u64::from(SECONDS));
    figures.connections = Some(connections.per_second);
    figures.failed = connections.failed;
    if forwarder.name != "haproxy" {
        figures.throughput =
            Some([1, 4].map(|streams| forwarder.measure_throughput(streams, SECONDS)));
        let new = forwarder.measure_packet_rate(Mix::New, NEW, 1);
        figures.new_flows = Some(new.per_second);
        figures.lost += new.lost;
    }
    figures
}
