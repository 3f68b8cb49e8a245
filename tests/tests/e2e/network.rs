//! Real programs at both ends, and the kernel's own TCP/IP stack as the judge.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tests::{
    net::{
        namespace::Namespace,
        process::{BackgroundProcess, fail, run, succeed},
        topology::{BACKENDS, CLIENT, ENDPOINT, Testbed},
        udp_client::request_until_accepted,
        wait,
    },
    services::nginx::Nginx,
};

fn curl(namespace: &Namespace, arguments: &str) -> Command {
    let mut command = namespace.command_line(&format!("curl -sS -m 60 {arguments}"));
    command.stdin(Stdio::null());
    command
}

/// Bytes that don't repeat, the same each time.
fn random_bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn is_snat_address(address: &str) -> bool {
    let last = address
        .strip_prefix("10.1.0.")
        .and_then(|last| last.parse::<u8>().ok());
    last.is_some_and(|last| (64..80).contains(&last))
}

/// A counter of the namespace's TCP/IP stack.
fn stack_counter(namespace: &Namespace, name: &str) -> u64 {
    let text = succeed(
        &mut namespace.command_line("cat /proc/thread-self/net/netstat /proc/thread-self/net/snmp"),
    );
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for pair in lines.chunks(2) {
        if let [names, values] = pair
            && let Some(index) = names.iter().position(|found| *found == name)
        {
            return values[index].parse().expect("a number");
        }
    }
    panic!("no counter {name}");
}

#[test]
fn concurrent_large_downloads_arrive_intact_at_both_consumers() {
    let site = Testbed::with_approved_connections();
    let servers = BACKENDS.map(|address| Nginx::start(&site.provider, address));
    let content = random_bytes(100_000_000);
    for server in &servers {
        fs::write(server.root().join("large"), &content).expect("a file");
    }
    let wanted: [u8; 32] = Sha256::digest(&content).into();
    let files = tempfile::tempdir().expect("a directory");
    let download = |namespace: &Namespace, name: &str| {
        let path = files.path().join(name);
        let mut command = curl(namespace, &format!("http://{ENDPOINT}/large -f -o"));
        command.arg(&path);
        (BackgroundProcess::start(&mut command).expect("curl"), path)
    };
    // Both clients have the same address and, as likely as not, the same port.
    let downloads = [download(&site.a, "a"), download(&site.b, "b")];
    for (mut curl, path) in downloads {
        wait::until("curl to end", Duration::from_secs(90), || {
            curl.has_exited().then_some(())
        });
        let got: [u8; 32] = Sha256::digest(fs::read(&path).expect("what was downloaded")).into();
        assert_eq!(got, wanted, "{} differs", path.display());
    }
    let mut clients: Vec<String> = servers.iter().flat_map(Nginx::client_addresses).collect();
    clients.sort();
    clients.dedup();
    assert!(
        clients.iter().all(|client| is_snat_address(client)),
        "{clients:?}"
    );
    // Two consumers may have the same one, by different ports.
    assert!(
        clients.len() <= 2,
        "each consumer appears as one address: {clients:?}"
    );
    // Offloads are as they come, so every segment of the provider's left without a checksum; the
    // receiving stacks found each of them right.
    for namespace in [&site.a, &site.b, &site.provider] {
        assert_eq!(stack_counter(namespace, "InCsumErrors"), 0);
    }
    let completed = site.agent.json("status")["statistics"]["checksums_completed"].as_u64();
    assert!(completed > Some(10_000), "{completed:?}");
}

#[test]
fn large_upload_arrives_intact() {
    let site = Testbed::with_approved_connections();
    let files = tempfile::tempdir().expect("a directory");
    let content = random_bytes(50_000_000);
    let (source, target) = (files.path().join("source"), files.path().join("target"));
    fs::write(&source, &content).expect("a file");
    let path = target.clone();
    let receiver = site.provider.spawn(move || {
        let listener = std::net::TcpListener::bind((BACKENDS[0], 7_000)).expect("a listener");
        let other = std::net::TcpListener::bind((BACKENDS[1], 7_000)).expect("a listener");
        for listener in [&listener, &other] {
            listener.set_nonblocking(true).expect("a listener");
        }
        let (mut stream, _) = wait::until("a client", wait::DEFAULT_TIMEOUT, || {
            listener.accept().ok().or_else(|| other.accept().ok())
        });
        stream.set_nonblocking(false).expect("a stream");
        let mut file = fs::File::create(path).expect("a file");
        std::io::copy(&mut stream, &mut file).expect("an upload")
    });
    let sent = site.a.spawn(move || {
        let mut stream = wait::until("a listener", wait::DEFAULT_TIMEOUT, || {
            std::net::TcpStream::connect((ENDPOINT, 7_000)).ok()
        });
        let mut file = fs::File::open(source).expect("a file");
        std::io::copy(&mut file, &mut stream).expect("an upload")
    });
    assert_eq!(sent.join().expect("the sender"), 50_000_000);
    assert_eq!(receiver.join().expect("the receiver"), 50_000_000);
    assert!(
        fs::read(target).expect("a file") == content,
        "what arrived differs"
    );
}

#[test]
fn requests_spread_over_the_backends() {
    let site = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&site.provider, address));
    let mut names = std::collections::BTreeMap::new();
    for _ in 0..40 {
        let name = succeed(&mut curl(&site.a, &format!("http://{ENDPOINT}/name")));
        *names.entry(name.trim().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn udp_requests_and_replies_are_forwarded() {
    let site = Testbed::with_approved_connections();
    for address in BACKENDS {
        // Ends with the test process; it only answers.
        site.provider.spawn(move || {
            let socket = UdpSocket::bind((address, 5_353)).expect("a socket");
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _client_gone = socket.send_to(&buffer[..length], from);
            }
        });
    }
    for namespace in [&site.a, &site.b] {
        namespace.run_in(|| {
            let socket = UdpSocket::bind((CLIENT, 0)).expect("a socket");
            socket.connect((ENDPOINT, 5_353)).expect("a socket");
            for length in [0, 1, 2, 511, 1_024, 1_471, 1_472] {
                let question = random_bytes(length);
                request_until_accepted(&socket, &question, |answer| *answer == question);
            }
        });
    }
    let flows = site.agent.json("flow list");
    let flows = flows.as_array().expect("a list");
    assert!(
        flows.iter().all(|flow| flow["state"] == "open"),
        "{flows:?}"
    );
    assert_eq!(flows.len(), 2, "{flows:?}");
    assert_eq!(stack_counter(&site.provider, "InCsumErrors"), 0);
}

/// A capture of what comes in at an interface.
struct Capture {
    running: BackgroundProcess,
    file: tempfile::NamedTempFile,
}

impl Capture {
    fn start(namespace: &Namespace, interface: &str, filter: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let line = format!(
            "tcpdump -i {interface} -Q in --immediate-mode -U -n -Z root -w {} {filter}",
            file.path().display()
        );
        let mut command = namespace.command_line(&line);
        command
            .stderr(log.reopen().expect("a file"))
            .stdout(Stdio::null());
        let running = BackgroundProcess::start(&mut command).expect("tcpdump");
        wait::until_true("tcpdump to listen", || {
            fs::read_to_string(log.path()).is_ok_and(|text| text.contains("listening on"))
        });
        Self { running, file }
    }

    /// What was captured, a line a packet, checksums examined.
    fn text(&mut self) -> String {
        self.running.terminate();
        let mut read = Command::new("tcpdump");
        read.args(["-n", "-vvv", "-e", "-r"]).arg(self.file.path());
        succeed(&mut read)
    }
}

#[test]
fn provider_sees_only_snat_addresses_and_valid_checksums() {
    let site = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&site.provider, address));
    let mut capture = Capture::start(&site.provider, "eth0", "tcp");
    for namespace in [&site.a, &site.b] {
        for _ in 0..20 {
            succeed(&mut curl(namespace, &format!("http://{ENDPOINT}/name")));
        }
    }
    let text = capture.text();
    let sources: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().split_once(" > "))
        .filter_map(|(source, _)| source.rsplit_once('.').map(|(address, _)| address))
        .filter(|address| address.starts_with("10."))
        .collect();
    assert!(sources.len() > 100, "{text}");
    assert!(
        sources.iter().all(|source| is_snat_address(source)),
        "{sources:?}"
    );
    for bad in ["incorrect", "bad cksum", "bad length", "bad hdr"] {
        assert!(!text.contains(bad), "{bad}:\n{text}");
    }
}

#[test]
fn pending_connection_forwards_no_packets() {
    let site = Testbed::new();
    let _servers = BACKENDS.map(|address| Nginx::start(&site.provider, address));
    let mut capture = Capture::start(&site.provider, "eth0", "not arp");
    let refusal = fail(&mut curl(&site.a, &format!("http://{ENDPOINT}/name")));
    // curl's code for a connection that was refused; 28 says that it timed out.
    assert!(refusal.contains("curl: (7)"), "{refusal}");
    assert!(site.agent.drop_count("connection_not_approved") > 0);
    let counters = &site.agent.json("endpoint show a/web")["status"]["counters"];
    let dropped = counters["drops"]["connection_not_approved"].as_u64();
    assert!(dropped > Some(0), "{counters}");
    // Each reason takes a system call, so that lists leave them out.
    let counters = &site.agent.json("endpoint list a")[0]["status"]["counters"];
    assert_eq!(counters["flows_opened"], 0, "{counters}");
    assert!(counters["drops"].is_null(), "{counters}");
    site.agent.cli("connection approve a/web");
    succeed(&mut curl(&site.a, &format!("http://{ENDPOINT}/name")));
    // b waits still.
    fail(&mut curl(&site.b, &format!("http://{ENDPOINT}/name")));
    let text = capture.text();
    let syns = text
        .lines()
        .filter(|line| line.contains("Flags [S]"))
        .count();
    assert_eq!(syns, 1, "the one of the approved connection:\n{text}");
}

#[test]
fn iperf3_ends_when_the_connection_is_rejected() {
    let site = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| {
        let mut server = site
            .provider
            .command_line(&format!("iperf3 -s -B {address}"));
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let server = BackgroundProcess::start(&mut server).expect("iperf3");
        wait::until_true("iperf3 to listen", || {
            let line = format!("ss -Hltn src {address}:5201");
            !succeed(&mut site.provider.command_line(&line)).is_empty()
        });
        server
    });
    // iperf3 has two connections, which must meet at one server.
    let [one, _] = BACKENDS;
    site.agent
        .cli(&format!("service backend drain shop/web {}", BACKENDS[1]));
    let before = site.agent.json("status")["drops"].clone();
    let mut command = site
        .a
        .command_line(&format!("iperf3 -J -t 3 -c {ENDPOINT}"));
    let report = run(&mut command, Duration::from_secs(30)).expect("iperf3");
    let report: Value = serde_json::from_slice(&report.stdout).expect("a report");
    let rate = report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .unwrap_or(0.0);
    assert!(rate > 1e6, "{rate} bit/s to {one}: {report}");
    assert_eq!(
        before,
        site.agent.json("status")["drops"],
        "packets were lost in the gateway"
    );

    let mut client = site.a.command_line(&format!("iperf3 -t 60 -c {ENDPOINT}"));
    client.stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = BackgroundProcess::start(&mut client).expect("iperf3");
    let crossed = || {
        site.agent.json("endpoint show a/web")["status"]["counters"]["bytes_to_service"]
            .as_u64()
            .expect("a number")
    };
    let first = crossed();
    wait::until_true("traffic", || crossed() > first + 10_000_000);
    site.agent.cli("connection reject a/web --reason enough");
    let cut = crossed();
    wait::until_true("iperf3 to die", || client.has_exited());
    assert_eq!(crossed(), cut, "packets passed after the rejection");
    assert!(site.agent.drop_count("connection_revoked") > 0);
}

#[test]
fn consumer_reaches_only_its_bound_resource() {
    let site = Testbed::with_approved_connections();
    let _server = Nginx::start(&site.provider, BACKENDS[0]);
    // The host has addresses in both networks, and something that listens there.
    site.host.ip("address add 10.0.0.1/24 dev gw-a");
    site.host.ip("address add 10.1.0.1/24 dev gw-p");
    site.host.spawn(|| {
        let listener = std::net::TcpListener::bind(("0.0.0.0", 80)).expect("a listener");
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    site.a.ip("route add default via 10.0.0.1");
    site.a
        .ip("neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev eth0");
    let mac = site.host.ip("-br link show dev gw-a");
    let mac = mac
        .split_whitespace()
        .nth(2)
        .expect("an address")
        .to_owned();
    site.a
        .ip(&format!("neighbour replace 10.0.0.1 lladdr {mac} dev eth0"));
    for (what, address) in [
        ("the host", "10.0.0.1"),
        ("the host's other address", "10.1.0.1"),
        ("a backend", BACKENDS[0]),
        ("a source NAT address", "10.1.0.64"),
        ("somebody else", "10.9.9.9"),
    ] {
        let before = site.agent.drop_count("no_such_endpoint");
        let mut command = site
            .a
            .command_line(&format!("curl -sS -m 1 http://{address}/name"));
        fail(&mut command);
        assert!(
            site.agent.drop_count("no_such_endpoint") > before,
            "{what} at {address}"
        );
    }
    // The provider does reach the host: its network is not isolated.
    let mut command = site.provider.command_line("curl -sS -m 5 http://10.1.0.1/");
    let answer = fail(&mut command);
    assert!(
        answer.contains("Empty reply") || answer.contains("reset"),
        "{answer}"
    );
}

#[test]
fn replies_to_a_routed_client_use_its_router() {
    let site = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&site.provider, address));
    let client = Namespace::new("far");
    site.a.connect_as("lan", &client, "eth0");
    site.a.ip("address add 192.168.7.1/24 dev lan");
    client.ip("address add 192.168.7.7/24 dev eth0");
    client.ip("route add default via 192.168.7.1");
    site.a
        .run_in(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("a router");
    let name = succeed(&mut curl(&client, &format!("http://{ENDPOINT}/name")));
    assert!(BACKENDS.contains(&name.trim()), "{name}");
    let flows = site.agent.json("flow list");
    let client: SocketAddr = flows[0]["client"]
        .as_str()
        .expect("a client")
        .parse()
        .expect("an address");
    assert_eq!(client.ip().to_string(), "192.168.7.7");
}

#[test]
fn endpoint_answers_ping() {
    let site = Testbed::new();
    let text = succeed(
        &mut site
            .a
            .command_line(&format!("ping -c 3 -i 0.2 -W 2 {ENDPOINT}")),
    );
    assert!(text.contains("3 received"), "{text}");
}

#[test]
fn thousand_short_connections_succeed() {
    let site = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&site.provider, address));
    let url = format!("http://{ENDPOINT}/name?[1-1000]");
    let mut command = site.a.command("curl");
    command.args([
        "-sSf",
        "-m",
        "60",
        "--no-keepalive",
        "-H",
        "Connection: close",
        &url,
    ]);
    let text = succeed(&mut command);
    assert_eq!(text.lines().count(), 1_000);
    assert_eq!(site.agent.drop_count("source_nat_exhausted"), 0);
}

#[test]
fn service_in_the_consumers_own_network_is_reachable() {
    // Hairpinning (RFC 4787, REQ-9): client and server are neighbours, and still meet by the endpoint.
    let site = Testbed::unconfigured();
    site.agent.cli("tenant create a");
    site.agent.cli("network create a/net --interface gw-a");
    site.a.ip("address add 10.0.0.20/24 dev eth0");
    site.agent.cli(
        "service create a/own --network net --port 80 --backend 10.0.0.20 --nat 10.0.0.64/28 \
         --auto-approval a",
    );
    site.agent
        .cli("endpoint create a/own --network net --address 10.0.0.100 --service a/own");
    wait::until_true("the backend to be reachable", || {
        let service = site.agent.json("service show a/own");
        service["status"]["backends"][0]["reachable"] == true
    });
    let server = Nginx::start(&site.a, "10.0.0.20");
    fs::write(server.root().join("large"), random_bytes(5_000_000)).expect("a file");
    let length = succeed(&mut curl(
        &site.a,
        "-o /dev/null -w %{size_download} http://10.0.0.100/large",
    ));
    assert_eq!(length, "5000000");
    let clients = server.client_addresses();
    assert!(
        clients.iter().all(|client| client.starts_with("10.0.0.")
            && client != CLIENT
            && client != "10.0.0.20"),
        "{clients:?}"
    );
}
