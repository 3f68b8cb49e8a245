//! The gateway, and what Linux has to do the same job with: nftables' destination NAT and masquerading, on
//! the very same veths.

use std::{any::Any, fs, os::fd::OwnedFd, sync::Arc};

use tests::{
    lab::udp,
    namespace::Namespace,
    process::succeed,
    site::{BACKENDS, CLIENT, ENDPOINT, Site},
};

use crate::traffic::{Counter, FLOWS, FRAME, Generator, Mix, Rate, rate, reflect};

/// Something between a consumer and a provider.
pub(crate) struct Contender {
    /// What it is.
    pub(crate) name: &'static str,
    /// The consumer's host.
    pub(crate) consumer: Arc<Namespace>,
    /// The provider's.
    pub(crate) provider: Arc<Namespace>,
    /// The hardware address that the consumer's packets go to.
    station: [u8; 6],
    _keep: Box<dyn Any>,
}

/// What was measured of one.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// What it is.
    pub(crate) name: &'static str,
    /// Packets a second of flows that are known.
    pub(crate) known: Rate,
    /// Packets a second, each of which opens a flow.
    pub(crate) new: Rate,
    /// Microseconds on the way, of 500, 990 and 999 in 1,000 packets, at half of the rate of the slowest.
    pub(crate) times: [f64; 3],
    /// TCP throughput with one stream and with four, in bits a second.
    pub(crate) throughput: [f64; 2],
}

fn mac(host: &Namespace, interface: &str) -> [u8; 6] {
    let shown = host.ip(&format!("-json link show dev {interface}"));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("what ip prints");
    let bytes: Vec<u8> = shown[0]["address"]
        .as_str()
        .expect("a hardware address")
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a hardware address"))
        .collect();
    bytes.try_into().expect("six bytes")
}

/// The gateway.
pub(crate) fn gateway() -> Contender {
    let Site {
        agent,
        host,
        a,
        b,
        provider,
    } = Site::approved();
    Contender {
        name: "gateway",
        station: mac(&host, "gw-a"),
        consumer: Arc::new(a),
        provider: Arc::new(provider),
        _keep: Box::new((agent, host, b)),
    }
}

/// nftables.
pub(crate) fn nftables() -> Contender {
    let host = Namespace::new("nft");
    let (consumer, provider) = (Namespace::new("a"), Namespace::new("p"));
    for (interface, other, address) in [
        ("gw-a", &consumer, "10.0.0.1/16"),
        ("gw-p", &provider, "10.1.0.1/24"),
    ] {
        host.connect(interface, other);
        host.ip(&format!("address add {address} dev {interface}"));
        succeed(&mut host.line(&format!("ethtool -K {interface} gro on")));
    }
    consumer.ip(&format!("address add {CLIENT}/16 dev eth0"));
    for backend in BACKENDS {
        provider.ip(&format!("address add {backend}/24 dev eth0"));
    }
    host.run_in(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("forwarding switched on");
    host.ip(&format!("address add {ENDPOINT}/32 dev gw-a"));
    let rules = format!(
        "add table ip gw\n\
         add chain ip gw pre {{ type nat hook prerouting priority dstnat; }}\n\
         add chain ip gw post {{ type nat hook postrouting priority srcnat; }}\n\
         add rule ip gw pre ip daddr {ENDPOINT} dnat to jhash ip saddr mod 2 map \
         {{ 0 : {}, 1 : {} }}\n\
         add rule ip gw post oifname gw-p masquerade\n",
        BACKENDS[0], BACKENDS[1]
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), rules).expect("a file");
    succeed(host.command("nft").arg("-f").arg(file.path()));
    Contender {
        name: "nftables",
        station: mac(&host, "gw-a"),
        consumer: Arc::new(consumer),
        provider: Arc::new(provider),
        _keep: Box::new(host),
    }
}

/// The number of `eth0` where this thread is.
fn interface() -> u32 {
    nix::net::if_::if_nametoindex("eth0").expect("an interface")
}

/// Stays on the second processor, where all is done then: veths hand packets on where they are sent.
fn pin() {
    let mut set = nix::sched::CpuSet::new();
    set.set(1).expect("a processor");
    // With one processor there is nothing to choose.
    let _only_one = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

impl Contender {
    fn frame(&self) -> Vec<u8> {
        let client = CLIENT.parse().expect("an address");
        let endpoint = ENDPOINT.parse().expect("an address");
        let mut datagram = udp((client, 1), (endpoint, 4_433), &[0; 22]).unchecksummed();
        datagram.to = self.station;
        datagram.from = mac(&self.consumer, "eth0");
        let datagram = datagram.with(|ip| {
            // What stands in the place of the source's end and of the packet's id adds up to the same.
            ip.id = 0;
        });
        let mut frame = datagram.bytes(false);
        frame.resize(FRAME, 0);
        frame
    }

    /// Frames of new flows: the source's end and the id are of each packet.
    fn frame_of_new(&self) -> Vec<u8> {
        let mut frame = self.frame();
        // The sum without source's end and id, and with the two that are complements of one another.
        frame[28..30].fill(0);
        frame[18..20].fill(0xff);
        frame[24..26].fill(0);
        let mut sum: u32 = frame[14..34]
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = !u16::try_from(sum).expect("folded");
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// Both sides see packets of every flow, so that all are established.
    fn establish(&self, generator: &Arc<Generator>) {
        let back = self
            .consumer
            .run_in(|| Counter::new(interface()))
            .expect("a counter");
        let mirror: OwnedFd = self
            .provider
            .run_in(|| reflect(interface()))
            .expect("a mirror");
        for _ in 0..3 {
            let generator = Arc::clone(generator);
            self.consumer
                .run_in(move || generator.send(FLOWS, 16))
                .expect("packets sent");
            let arrived = back.settled().expect("a count");
            assert!(arrived > 0, "{}: nothing comes back", self.name);
        }
        drop(mirror);
    }

    /// Packets a second.
    pub(crate) fn packets(&self, mix: Mix, packets: u32, rounds: u32) -> Rate {
        let frame = match mix {
            Mix::Known => self.frame(),
            Mix::New => self.frame_of_new(),
        };
        let generator = self
            .consumer
            .run_in(move || Generator::new(&frame, mix, interface()))
            .expect("a generator");
        let generator = Arc::new(generator);
        if mix == Mix::Known {
            self.establish(&generator);
        }
        let counter = self
            .provider
            .run_in(|| Counter::new(interface()))
            .expect("a counter");
        self.consumer.run_in(move || {
            pin();
            let rates = (0..rounds).map(|_| rate(&generator, &counter, packets).expect("a rate"));
            rates
                .max_by(|one, other| one.per_second.total_cmp(&other.per_second))
                .expect("a round")
        })
    }
}
