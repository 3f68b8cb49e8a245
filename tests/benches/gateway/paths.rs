//! End-to-end measurements from one host to another: the gateway and its baselines.

use serde::Serialize;

use crate::{
    baselines::{Forwarder, gateway, haproxy, nftables, wire},
    traffic::{Mix, Pacing},
};

/// Packets of established flows in a round.
const PACKETS: u32 = 1_000_000;
/// Packets that each open a flow in a round. The kernel's connection tracking table has room for those of
/// [`NEW_ROUNDS`].
const NEW: u32 = 60_000;
/// Number of rounds of packets that open flows.
const NEW_ROUNDS: u32 = 3;
/// Number of rounds, of which the best counts.
const ROUNDS: u32 = 5;
/// Seconds of a TCP measurement.
const SECONDS: u32 = 3;

/// Results of one forwarder.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Name of the forwarder.
    pub(crate) name: &'static str,
    /// Packets a second of established flows.
    pub(crate) packets: Option<f64>,
    /// Packets a second that each open a flow.
    pub(crate) new_flows: Option<f64>,
    /// Lost packets of new flows.
    pub(crate) lost: u64,
    /// Latency percentiles 50, 99 and 99.9 of packets in bursts, in microseconds.
    pub(crate) microseconds: Option<[f64; 3]>,
    /// Latency percentiles of single packets, in microseconds.
    pub(crate) microseconds_alone: Option<[f64; 3]>,
    /// Connections a second, each with a request and a response.
    pub(crate) connections: Option<f64>,
    /// Failed connections.
    pub(crate) failed: u64,
    /// TCP throughput with one stream and with four, in bits a second.
    pub(crate) throughput: Option<[f64; 2]>,
}

/// Measures every forwarder.
pub(crate) fn measure() -> Vec<Figures> {
    let mut all = Vec::new();
    for make in [wire, nftables, gateway, haproxy] {
        let forwarder = make();
        eprintln!("==> {}", forwarder.name);
        all.push(measure_forwarder(&forwarder));
    }
    // Half of the slower forwarder's packet rate.
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
        let new = forwarder.measure_packet_rate(Mix::New, NEW, NEW_ROUNDS);
        figures.new_flows = Some(new.per_second);
        figures.lost += new.lost;
    }
    figures
}
