//! The gateway and its baselines on the same veths: nftables with DNAT and masquerading, HAProxy, and a bare redirect.

use std::{
    any::Any,
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    datapath::differential::udp,
    net::{
        namespace::Namespace,
        process::{self, BackgroundProcess, succeed},
        topology::{BACKENDS, CLIENT, ENDPOINT, Testbed},
        wait,
    },
};

use crate::traffic::{
    self, Clock, Counter, FLOWS, FRAME, Generator, Mix, Pacing, Rate, Stream, rate, reflect,
};

/// Duration of a latency measurement, in seconds.
const SECONDS: f64 = 2.0;

/// A forwarder between a consumer and a provider.
pub(crate) struct Forwarder {
    /// Name in the results.
    pub(crate) name: &'static str,
    /// Programs and processes of the forwarder. They are dropped first.
    resources: Box<dyn Any>,
    /// Host of the forwarder.
    host: Arc<Namespace>,
    /// Host of the consumer.
    consumer: Arc<Namespace>,
    /// Host of the provider.
    provider: Arc<Namespace>,
    /// Destination MAC address of the consumer's packets.
    next_hop_mac: [u8; 6],
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

/// Returns the gateway, with flow tables for more flows than the benchmark opens. It collects garbage as often as by
/// default, which the test kit does more often.
pub(crate) fn gateway() -> Forwarder {
    let testbed = Testbed::unconfigured_with(&[
        ("PLGW_FLOW_TABLE_SIZE", "1048576"),
        ("PLGW_FLOW_GC_INTERVAL", "5"),
    ]);
    testbed.configure();
    testbed.approve_connections();
    let Testbed {
        agent,
        host,
        a,
        b,
        provider,
    } = testbed;
    Forwarder {
        name: "gateway",
        next_hop_mac: mac(&host, "gw-a"),
        host,
        consumer: Arc::new(a),
        provider: Arc::new(provider),
        resources: Box::new((agent, b)),
    }
}

/// Returns a Linux host with nftables.
pub(crate) fn nftables() -> Forwarder {
    let forwarder = kernel_forwarder("nftables");
    let rules = format!(
        "add table ip gw\n\
         add chain ip gw pre {{ type nat hook prerouting priority dstnat; }}\n\
         add chain ip gw post {{ type nat hook postrouting priority srcnat; }}\n\
         add rule ip gw pre ip daddr {ENDPOINT} dnat to jhash ip saddr . th sport mod 2 map \
         {{ 0 : {}, 1 : {} }}\n\
         add rule ip gw post oifname gw-p masquerade\n",
        BACKENDS[0], BACKENDS[1]
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), rules).expect("a file");
    succeed(forwarder.host.command("nft").arg("-f").arg(file.path()));
    forwarder
}

/// Returns a Linux host in the gateway's place, which forwards nothing yet.
fn kernel_forwarder(name: &'static str) -> Forwarder {
    let host = Namespace::new(name);
    let (consumer, provider) = (Namespace::new("a"), Namespace::new("p"));
    for (interface, other, address) in [
        ("gw-a", &consumer, "10.0.0.1/16"),
        ("gw-p", &provider, "10.1.0.1/24"),
    ] {
        host.connect(interface, other);
        host.ip(&format!("address add {address} dev {interface}"));
        succeed(&mut host.command_line(&format!("ethtool -K {interface} gro on")));
    }
    consumer.ip(&format!("address add {CLIENT}/16 dev eth0"));
    for backend in BACKENDS {
        provider.ip(&format!("address add {backend}/24 dev eth0"));
    }
    host.run_in(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("forwarding switched on");
    host.ip(&format!("address add {ENDPOINT}/32 dev gw-a"));
    Forwarder {
        name,
        next_hop_mac: mac(&host, "gw-a"),
        host: Arc::new(host),
        consumer: Arc::new(consumer),
        provider: Arc::new(provider),
        resources: Box::new(()),
    }
}

/// Returns a host with HAProxy, which handles connections only.
pub(crate) fn haproxy() -> Forwarder {
    let mut forwarder = kernel_forwarder("haproxy");
    let configuration = format!(
        "global\n  maxconn 2000\n  nbthread 2\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
         listen web\n  bind {ENDPOINT}:{PORT}\n  server one {}:{PORT}\n  server two {}:{PORT}\n",
        BACKENDS[0], BACKENDS[1]
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), configuration).expect("a file");
    let mut command = forwarder.host.command("haproxy");
    let running =
        BackgroundProcess::start(command.arg("-db").arg("-f").arg(file.path())).expect("haproxy");
    forwarder.resources = Box::new((running, file));
    forwarder
}

/// Returns a host that redirects every frame from one interface to the other.
pub(crate) fn wire() -> Forwarder {
    let mut forwarder = kernel_forwarder("wire");
    let there = forwarder.host.run_in(|| {
        let index = |name| nix::net::if_::if_nametoindex(name).expect("an interface");
        let (consumer, provider) = (index("gw-a"), index("gw-p"));
        [
            traffic::redirect_between(consumer, provider).expect("a program"),
            traffic::redirect_between(provider, consumer).expect("a program"),
        ]
    });
    forwarder.resources = Box::new(there);
    forwarder
}

/// Returns the index of `eth0` in this thread's network namespace.
fn interface() -> u32 {
    nix::net::if_::if_nametoindex("eth0").expect("an interface")
}

/// Pins this thread to a processor. Veths process packets on the processor that sends them, so all work happens there.
pub(crate) fn pin_to_cpu(processor: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(processor).expect("a processor");
    // With one processor pinning fails, and is not needed.
    let _only_one = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

impl Forwarder {
    fn frame(&self) -> Vec<u8> {
        let client = CLIENT.parse().expect("an address");
        let endpoint = ENDPOINT.parse().expect("an address");
        let mut datagram = udp((client, 1), (endpoint, 4_433), &[0; 22]).without_udp_checksum();
        datagram.to = self.next_hop_mac;
        datagram.from = mac(&self.consumer, "eth0");
        let datagram = datagram.edit_ipv4(|ip| {
            // The end of the source address and the packet's id vary, but their sum is constant.
            ip.id = 0;
        });
        let mut frame = datagram.bytes(false);
        frame.resize(FRAME, 0);
        frame
    }

    /// Returns the template of frames that open flows. The end of the source address and the id differ in each packet.
    fn new_flow_frame(&self) -> Vec<u8> {
        let mut frame = self.frame();
        // The checksum without these two fields, which are complements of each other, is adjusted once.
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

    /// Sends packets of every flow from both sides, so that all are established.
    fn establish(&self, generator: &Arc<Generator>) {
        let back = self
            .consumer
            .run_in(|| Counter::new(interface(), Clock::Off))
            .expect("a counter");
        let mirror: OwnedFd = self
            .provider
            .run_in(|| reflect(interface()))
            .expect("a mirror");
        for _ in 0..3 {
            let generator = Arc::clone(generator);
            self.consumer
                .run_in(move || generator.send(FLOWS))
                .expect("packets sent");
            let arrived = back.wait_until_stable().expect("a count");
            assert!(arrived > 0, "{}: nothing comes back", self.name);
        }
        drop(mirror);
    }

    /// Measures packets a second.
    pub(crate) fn measure_packet_rate(&self, mix: Mix, packets: u32, rounds: u32) -> Rate {
        let frame = match mix {
            Mix::Known => self.frame(),
            Mix::New => self.new_flow_frame(),
        };
        let stream = Stream {
            mix,
            clock: Clock::Off,
            pace: None,
        };
        let generator = self
            .consumer
            .run_in(move || Generator::new(&frame, stream, interface()))
            .expect("a generator");
        let generator = Arc::new(generator);
        if mix == Mix::Known {
            self.establish(&generator);
        }
        let counter = self
            .provider
            .run_in(|| Counter::new(interface(), Clock::Off))
            .expect("a counter");
        self.consumer.run_in(move || {
            pin_to_cpu(1);
            let rates = (0..rounds).map(|_| rate(&generator, &counter, packets).expect("a rate"));
            rates
                .max_by(|one, other| one.per_second.total_cmp(&other.per_second))
                .expect("a round")
        })
    }

    /// Measures the latency percentiles 50, 99 and 99.9 of established flows at a packet rate, in microseconds.
    pub(crate) fn measure_latencies(&self, arrivals: Pacing, per_second: f64) -> [f64; 3] {
        let frame = self.frame();
        let stream = Stream {
            mix: Mix::Known,
            clock: Clock::On,
            pace: Some((arrivals, per_second)),
        };
        let generator = self
            .consumer
            .run_in(move || Generator::new(&frame, stream, interface()))
            .expect("a generator");
        let generator = Arc::new(generator);
        self.establish(&generator);
        let counter = self
            .provider
            .run_in(|| Counter::new(interface(), Clock::On))
            .expect("a counter");
        self.consumer.run_in(move || {
            pin_to_cpu(1);
            #[expect(clippy::cast_possible_truncation, reason = "some millions")]
            #[expect(clippy::cast_sign_loss, reason = "more than none")]
            let packets = (per_second * SECONDS) as u32;
            generator.send(packets).expect("packets sent");
            counter.wait_until_stable().expect("a count");
            counter
                .latency_percentiles([500, 990, 999])
                .expect("the times")
        })
    }

    /// Measures the throughput of TCP streams, in bits a second.
    pub(crate) fn measure_throughput(&self, streams: u32, seconds: u32) -> f64 {
        let mut server = self.provider.command_line("iperf3 -s -1");
        let _server =
            BackgroundProcess::start(server.stdout(std::process::Stdio::null())).expect("iperf3");
        let client = format!("iperf3 -c {ENDPOINT} -J -P {streams} -t {seconds}");
        let begin = Instant::now();
        loop {
            let output = process::run(
                &mut self.consumer.command_line(&client),
                Duration::from_secs(60),
            );
            let output = output.expect("iperf3");
            let said: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            let rate = &said["end"]["sum_received"]["bits_per_second"];
            if let Some(rate) = rate.as_f64() {
                return rate;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{}: no throughput: {said}",
                self.name
            );
        }
    }

    /// Measures connections of two clients, each of which opens, requests, reads the response and closes in a loop.
    pub(crate) fn measure_connections(&self, seconds: u64) -> Connections {
        let stop = Arc::new(AtomicBool::new(false));
        let listening = self.provider.run_in(|| {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a listener");
            listener.set_nonblocking(false).expect("a listener");
            listener
        });
        let servers: Vec<_> = (0..2)
            .map(|_| {
                let listener = listening.try_clone().expect("a listener");
                let stop = Arc::clone(&stop);
                thread::spawn(move || serve(&listener, &stop))
            })
            .collect();
        let clients: Vec<_> = (0..2)
            .map(|_| {
                self.consumer
                    .spawn(move || request_repeatedly(Duration::from_secs(seconds)))
            })
            .collect();
        let asked = clients
            .into_iter()
            .map(|client| client.join().expect("a client"));
        let all = asked.fold(Connections::default(), |sum, one| Connections {
            per_second: sum.per_second + one.per_second,
            failed: sum.failed + one.failed,
        });
        stop.store(true, Ordering::Relaxed);
        for address in [BACKENDS[0], BACKENDS[1]] {
            // Wakes the servers, so that they notice the end.
            let address = format!("{address}:{PORT}");
            self.provider
                .run_in(move || drop(TcpStream::connect(address)));
        }
        for server in servers {
            server.join().expect("a server");
        }
        all
    }
}

/// Port of the connection measurement.
const PORT: u16 = 8_080;

/// Results of the connection measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connections {
    /// Successful connections a second.
    pub(crate) per_second: f64,
    /// Failed connections.
    pub(crate) failed: u64,
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut stream) = stream else {
            continue;
        };
        let mut question = [0; 16];
        // A write to a client that has gone fails, which does not matter.
        let _gone = stream
            .read_exact(&mut question)
            .and_then(|()| stream.write_all(&question))
            .and_then(|()| stream.read(&mut question));
    }
}

fn request_repeatedly(long: Duration) -> Connections {
    let limit = Duration::from_secs(3);
    let address: SocketAddr = format!("{ENDPOINT}:{PORT}").parse().expect("an address");
    let attempt = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let question = *b"are you there? \n";
        stream.write_all(&question)?;
        let mut answer = [0; 16];
        stream.read_exact(&mut answer)?;
        if answer == question {
            // A reset at close leaves no port in TIME_WAIT, which would use up the ports.
            disable_linger(&stream)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    };
    // A server that was just started may not listen yet.
    wait::until_true("the first answer", || attempt().is_ok());
    let begin = Instant::now();
    let (mut answered, mut failed) = (0u64, 0);
    while begin.elapsed() < long {
        match attempt() {
            Ok(()) => answered += 1,
            Err(_) => {
                failed += 1;
                // A refused connection fails at once.
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    Connections {
        per_second: answered as f64 / begin.elapsed().as_secs_f64(),
        failed,
    }
}

/// Makes `close` send a reset.
fn disable_linger(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option takes this structure, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            libc::socklen_t::try_from(size_of::<libc::linger>()).expect("a small structure"),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
