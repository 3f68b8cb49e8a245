//! Transfers by TCP and UDP arrive intact, and ping is answered.

use std::{fs, net::UdpSocket, time::Duration};

use sha2::{Digest as _, Sha256};
use tests::{
    net::{
        namespace::Namespace,
        process::{BackgroundProcess, succeed},
        topology::{BACKENDS, CLIENT, ENDPOINT, Testbed},
        udp_client::request_until_accepted,
        wait,
    },
    services::nginx::Nginx,
};

use crate::{curl, is_snat_address, random_bytes, stack_counter};

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
