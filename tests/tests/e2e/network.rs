//! Traffic of real programs through the gateway, checked by the kernel's TCP/IP stacks and by captures.

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

/// Returns a curl command that runs in the namespace.
fn curl(namespace: &Namespace, arguments: &str) -> Command {
    let mut command = namespace.command_line(&format!("curl -sS -m 60 {arguments}"));
    command.stdin(Stdio::null());
    command
}

/// Returns pseudo-random bytes (xorshift), the same ones on every call.
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

/// Returns true for an address of `topology::NAT`, 10.1.0.64/28.
fn is_snat_address(address: &str) -> bool {
    let last = address
        .strip_prefix("10.1.0.")
        .and_then(|last| last.parse::<u8>().ok());
    last.is_some_and(|last| (64..80).contains(&last))
}

/// Returns a counter of the namespace's TCP/IP stack, as `nstat` shows it.
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
            return values[index].parse().expect("a numeric counter");
        }
    }
    panic!("the TCP/IP stack has no counter {name}");
}

#[test]
fn concurrent_large_downloads_arrive_intact_at_both_consumers() {
    let testbed = Testbed::with_approved_connections();
    let servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
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
    // Both clients have the same address and often the same source port.
    let downloads = [download(&testbed.a, "a"), download(&testbed.b, "b")];
    for (mut curl, path) in downloads {
        wait::until("curl to exit", Duration::from_secs(90), || {
            curl.has_exited().then_some(())
        });
        let got: [u8; 32] = Sha256::digest(fs::read(&path).expect("the downloaded file")).into();
        assert_eq!(
            got,
            wanted,
            "{} differs from the served file",
            path.display()
        );
    }
    let mut clients: Vec<String> = servers.iter().flat_map(Nginx::client_addresses).collect();
    clients.sort();
    clients.dedup();
    assert!(
        clients.iter().all(|client| is_snat_address(client)),
        "the backends saw addresses other than SNAT addresses: {clients:?}"
    );
    // Two consumers may share one SNAT address with different ports.
    assert!(
        clients.len() <= 2,
        "a consumer appears with more than one SNAT address: {clients:?}"
    );
    // The interfaces keep their offloads, so every segment left the provider's stack without a checksum.
    // The gateway completed it, and the receiving stacks found each checksum correct.
    for namespace in [&testbed.a, &testbed.b, &testbed.provider] {
        assert_eq!(stack_counter(namespace, "InCsumErrors"), 0);
    }
    let completed = testbed.agent.json("status")["statistics"]["checksums_completed"].as_u64();
    assert!(completed > Some(10_000), "{completed:?}");
}

#[test]
fn large_upload_arrives_intact() {
    let testbed = Testbed::with_approved_connections();
    let files = tempfile::tempdir().expect("a directory");
    let content = random_bytes(50_000_000);
    let (source, target) = (files.path().join("source"), files.path().join("target"));
    fs::write(&source, &content).expect("a file");
    let path = target.clone();
    let receiver = testbed.provider.spawn(move || {
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
    let sent = testbed.a.spawn(move || {
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
        "the received file differs from the sent one"
    );
}

#[test]
fn requests_spread_over_the_backends() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let mut names = std::collections::BTreeMap::new();
    for _ in 0..40 {
        let name = succeed(&mut curl(&testbed.a, &format!("http://{ENDPOINT}/name")));
        *names.entry(name.trim().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(names.len(), 2, "requests for each backend: {names:?}");
}

#[test]
fn udp_requests_and_replies_are_forwarded() {
    let testbed = Testbed::with_approved_connections();
    for address in BACKENDS {
        // The echo server runs until the test process exits.
        testbed.provider.spawn(move || {
            let socket = UdpSocket::bind((address, 5_353)).expect("a socket");
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _client_gone = socket.send_to(&buffer[..length], from);
            }
        });
    }
    for namespace in [&testbed.a, &testbed.b] {
        namespace.run_in(|| {
            let socket = UdpSocket::bind((CLIENT, 0)).expect("a socket");
            socket.connect((ENDPOINT, 5_353)).expect("a socket");
            for length in [0, 1, 2, 511, 1_024, 1_471, 1_472] {
                let question = random_bytes(length);
                request_until_accepted(&socket, &question, |answer| *answer == question);
            }
        });
    }
    let flows = testbed.agent.json("flow list");
    let flows = flows.as_array().expect("a list");
    assert!(
        flows.iter().all(|flow| flow["state"] == "open"),
        "{flows:?}"
    );
    assert_eq!(flows.len(), 2, "{flows:?}");
    assert_eq!(stack_counter(&testbed.provider, "InCsumErrors"), 0);
}

/// A capture by tcpdump of the packets that an interface receives.
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

    /// Stops the capture. Returns its packets as text, with the result of the checksum checks.
    fn text(&mut self) -> String {
        self.running.terminate();
        let mut read = Command::new("tcpdump");
        read.args(["-n", "-vvv", "-e", "-r"]).arg(self.file.path());
        succeed(&mut read)
    }
}

#[test]
fn provider_sees_only_snat_addresses_and_valid_checksums() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let mut capture = Capture::start(&testbed.provider, "eth0", "tcp");
    for namespace in [&testbed.a, &testbed.b] {
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
        "the provider saw addresses other than SNAT addresses: {sources:?}"
    );
    for bad in ["incorrect", "bad cksum", "bad length", "bad hdr"] {
        assert!(!text.contains(bad), "the capture has {bad:?}:\n{text}");
    }
}

#[test]
fn pending_connection_forwards_no_packets() {
    let testbed = Testbed::new();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let mut capture = Capture::start(&testbed.provider, "eth0", "not arp");
    let error = fail(&mut curl(&testbed.a, &format!("http://{ENDPOINT}/name")));
    // Exit code 7 means that the connection was refused; 28 would mean a timeout.
    assert!(error.contains("curl: (7)"), "{error}");
    assert!(testbed.agent.drop_count("connection_not_approved") > 0);
    let counters = &testbed.agent.json("endpoint show a/web")["status"]["counters"];
    let dropped = counters["drops"]["connection_not_approved"].as_u64();
    assert!(dropped > Some(0), "{counters}");
    // Lists leave the drop reasons out, because each reason costs a system call.
    let counters = &testbed.agent.json("endpoint list a")[0]["status"]["counters"];
    assert_eq!(counters["flows_opened"], 0, "{counters}");
    assert!(counters["drops"].is_null(), "{counters}");
    testbed.agent.cli("connection approve a/web");
    succeed(&mut curl(&testbed.a, &format!("http://{ENDPOINT}/name")));
    // The connection of tenant b is still pending.
    fail(&mut curl(&testbed.b, &format!("http://{ENDPOINT}/name")));
    let text = capture.text();
    let syns = text
        .lines()
        .filter(|line| line.contains("Flags [S]"))
        .count();
    assert_eq!(syns, 1, "SYNs besides the approved connection's:\n{text}");
}

#[test]
fn iperf3_ends_when_the_connection_is_rejected() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| {
        let mut server = testbed
            .provider
            .command_line(&format!("iperf3 -s -B {address}"));
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let server = BackgroundProcess::start(&mut server).expect("iperf3");
        wait::until_true("iperf3 to listen", || {
            let line = format!("ss -Hltn src {address}:5201");
            !succeed(&mut testbed.provider.command_line(&line)).is_empty()
        });
        server
    });
    // iperf3 opens a control and a data connection, which must reach the same server.
    let [one, _] = BACKENDS;
    testbed
        .agent
        .cli(&format!("service backend drain shop/web {}", BACKENDS[1]));
    let before = testbed.agent.json("status")["drops"].clone();
    let mut command = testbed
        .a
        .command_line(&format!("iperf3 -J -t 3 -c {ENDPOINT}"));
    let report = run(&mut command, Duration::from_secs(30)).expect("iperf3");
    let report: Value = serde_json::from_slice(&report.stdout).expect("a report");
    let rate = report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .unwrap_or(0.0);
    assert!(rate > 1e6, "throughput of {rate} bit/s to {one}: {report}");
    assert_eq!(
        before,
        testbed.agent.json("status")["drops"],
        "the gateway dropped packets of an approved connection"
    );

    let mut client = testbed
        .a
        .command_line(&format!("iperf3 -t 60 -c {ENDPOINT}"));
    client.stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = BackgroundProcess::start(&mut client).expect("iperf3");
    let forwarded_bytes = || {
        testbed.agent.json("endpoint show a/web")["status"]["counters"]["bytes_to_service"]
            .as_u64()
            .expect("a number")
    };
    let first = forwarded_bytes();
    wait::until_true("iperf3 to send 10 MB", || {
        forwarded_bytes() > first + 10_000_000
    });
    testbed.agent.cli("connection reject a/web --reason enough");
    let at_rejection = forwarded_bytes();
    wait::until_true("iperf3 to exit", || client.has_exited());
    assert_eq!(
        forwarded_bytes(),
        at_rejection,
        "packets were forwarded after the rejection"
    );
    assert!(testbed.agent.drop_count("connection_revoked") > 0);
}

#[test]
fn consumer_reaches_only_its_bound_resource() {
    let testbed = Testbed::with_approved_connections();
    let _server = Nginx::start(&testbed.provider, BACKENDS[0]);
    // The host has an address in both networks, and a server that listens on all addresses.
    testbed.host.ip("address add 10.0.0.1/24 dev gw-a");
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    testbed.host.spawn(|| {
        let listener = std::net::TcpListener::bind(("0.0.0.0", 80)).expect("a listener");
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    testbed.a.ip("route add default via 10.0.0.1");
    testbed
        .a
        .ip("neighbour replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev eth0");
    let mac = testbed.host.ip("-br link show dev gw-a");
    let mac = mac
        .split_whitespace()
        .nth(2)
        .expect("an address")
        .to_owned();
    testbed
        .a
        .ip(&format!("neighbour replace 10.0.0.1 lladdr {mac} dev eth0"));
    for (target, address) in [
        ("the host", "10.0.0.1"),
        ("the host's other address", "10.1.0.1"),
        ("a backend", BACKENDS[0]),
        ("a source NAT address", "10.1.0.64"),
        ("an unknown address", "10.9.9.9"),
    ] {
        let before = testbed.agent.drop_count("no_such_endpoint");
        let mut command = testbed
            .a
            .command_line(&format!("curl -sS -m 1 http://{address}/name"));
        fail(&mut command);
        assert!(
            testbed.agent.drop_count("no_such_endpoint") > before,
            "no packet to {target} ({address}) was dropped as no_such_endpoint"
        );
    }
    // The provider reaches the host, because its network is not isolated.
    let mut command = testbed
        .provider
        .command_line("curl -sS -m 5 http://10.1.0.1/");
    let answer = fail(&mut command);
    assert!(
        answer.contains("Empty reply") || answer.contains("reset"),
        "{answer}"
    );
}

#[test]
fn replies_to_a_routed_client_use_its_router() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let client = Namespace::new("far");
    testbed.a.connect_as("lan", &client, "eth0");
    testbed.a.ip("address add 192.168.7.1/24 dev lan");
    client.ip("address add 192.168.7.7/24 dev eth0");
    client.ip("route add default via 192.168.7.1");
    testbed
        .a
        .run_in(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("a router");
    let name = succeed(&mut curl(&client, &format!("http://{ENDPOINT}/name")));
    assert!(BACKENDS.contains(&name.trim()), "{name}");
    let flows = testbed.agent.json("flow list");
    let client: SocketAddr = flows[0]["client"]
        .as_str()
        .expect("a client")
        .parse()
        .expect("an address");
    assert_eq!(client.ip().to_string(), "192.168.7.7");
}

#[test]
fn endpoint_answers_ping() {
    let testbed = Testbed::new();
    let text = succeed(
        &mut testbed
            .a
            .command_line(&format!("ping -c 3 -i 0.2 -W 2 {ENDPOINT}")),
    );
    assert!(text.contains("3 received"), "{text}");
}

#[test]
fn thousand_short_connections_succeed() {
    let testbed = Testbed::with_approved_connections();
    let _servers = BACKENDS.map(|address| Nginx::start(&testbed.provider, address));
    let url = format!("http://{ENDPOINT}/name?[1-1000]");
    let mut command = testbed.a.command("curl");
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
    assert_eq!(text.lines().count(), 1_000, "responses");
    assert_eq!(testbed.agent.drop_count("source_nat_exhausted"), 0);
}

#[test]
fn service_in_the_consumers_own_network_is_reachable() {
    // Hairpinning (RFC 4787, REQ-9): client and server are in one network and communicate through the endpoint.
    let testbed = Testbed::unconfigured();
    testbed.agent.cli("tenant create a");
    testbed.agent.cli("network create a/net --interface gw-a");
    testbed.a.ip("address add 10.0.0.20/24 dev eth0");
    testbed.agent.cli(
        "service create a/own --network net --port 80 --backend 10.0.0.20 --nat 10.0.0.64/28 \
         --auto-approval a",
    );
    testbed
        .agent
        .cli("endpoint create a/own --network net --address 10.0.0.100 --service a/own");
    wait::until_true("the backend to be reachable", || {
        let service = testbed.agent.json("service show a/own");
        service["status"]["backends"][0]["reachable"] == true
    });
    let server = Nginx::start(&testbed.a, "10.0.0.20");
    fs::write(server.root().join("large"), random_bytes(5_000_000)).expect("a file");
    let length = succeed(&mut curl(
        &testbed.a,
        "-o /dev/null -w %{size_download} http://10.0.0.100/large",
    ));
    assert_eq!(length, "5000000");
    let clients = server.client_addresses();
    assert!(
        clients.iter().all(|client| client.starts_with("10.0.0.")
            && client != CLIENT
            && client != "10.0.0.20"),
        "the server saw addresses other than SNAT addresses: {clients:?}"
    );
}
