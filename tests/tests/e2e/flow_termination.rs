//! Termination of flows: both ends are reset and neither hangs. Health checks, which keep new flows away from unhealthy
//! backends.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tests::{
    net::{
        families::{Families, for_each_family_pair},
        process::{BackgroundProcess, fail, succeed},
        topology::Testbed,
        wait,
    },
    services::nginx::Nginx,
};

/// Time limit of the resets after a flow is terminated. They take milliseconds, but the machine may be busy.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);

/// Result of the read that ends a connection at an end that only reads.
type ReadResult = Result<usize, ErrorKind>;

/// A TCP connection whose ends only read, with the threads that return the results.
struct IdleConnection {
    client: JoinHandle<ReadResult>,
    server: JoinHandle<ReadResult>,
}

/// Reads until data arrives or the connection ends. The read times out after 30 seconds, which exceeds the time limits
/// of all tests.
fn read_until_end(mut stream: &TcpStream) -> ReadResult {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a stream");
    stream.read(&mut [0; 16]).map_err(|error| error.kind())
}

impl IdleConnection {
    /// Opens a connection. 1,000 bytes are sent in each direction first.
    fn open(families: Families, testbed: &Testbed, port: u16) -> Self {
        let address = SocketAddr::new(families.backend(), port);
        let (listens, listening) = mpsc::channel();
        let (opened, open) = mpsc::channel();
        let server = testbed.provider.spawn(move || {
            let listener = TcpListener::bind(address).expect("a listener");
            listens.send(()).expect("a waiting test");
            let (mut stream, _) = listener.accept().expect("a client");
            let mut question = [0; 1_000];
            stream.read_exact(&mut question).expect("a question");
            stream.write_all(&question).expect("a sent answer");
            read_until_end(&stream)
        });
        listening.recv().expect("a listener");
        let endpoint = SocketAddr::new(families.endpoint(), port);
        let client = testbed.a.spawn(move || {
            let mut stream = TcpStream::connect(endpoint).expect("a connection");
            stream.write_all(&[7; 1_000]).expect("a sent question");
            stream.read_exact(&mut [0; 1_000]).expect("an answer");
            opened.send(()).expect("a waiting test");
            read_until_end(&stream)
        });
        open.recv().expect("an open connection");
        Self { client, server }
    }

    /// Asserts that both ends are reset within the time limit after `since`.
    #[track_caller]
    fn expect_reset(self, since: Instant, within: Duration) {
        for (end, thread) in [("client", self.client), ("server", self.server)] {
            let result = thread.join().expect("a result");
            assert_eq!(
                result,
                Err(ErrorKind::ConnectionReset),
                "result of the {end}'s read"
            );
            assert!(
                since.elapsed() < within * wait::timeout_factor(),
                "the {end} was reset after {:?}",
                since.elapsed()
            );
        }
    }
}

#[test]
fn revocation_resets_both_ends_of_an_idle_connection() {
    for_each_family_pair(|families, testbed| {
        let connection = IdleConnection::open(families, testbed, 7_101);
        let since = Instant::now();
        testbed.agent.cli("connection reject a/web --reason over");
        connection.expect_reset(since, RESET_TIMEOUT);
    });
}

#[test]
fn endpoint_deletion_resets_both_ends() {
    let testbed = Families::V4ToV4.testbed();
    let connection = IdleConnection::open(Families::V4ToV4, &testbed, 7_102);
    let since = Instant::now();
    testbed.agent.cli("endpoint delete a/web");
    connection.expect_reset(since, RESET_TIMEOUT);
}

#[test]
fn idle_timeout_resets_both_ends() {
    for_each_family_pair(|families, testbed| {
        testbed
            .agent
            .cli("service update shop/web --tcp-established-timeout 5");
        let connection = IdleConnection::open(families, testbed, 7_103);
        // The timeout of five seconds, the resolution of coarse time, and a GC interval.
        connection.expect_reset(Instant::now(), Duration::from_secs(15));
        assert!(!testbed.agent.cli("flow list").contains("7103"));
    });
}

#[test]
fn backend_removal_resets_both_ends() {
    for_each_family_pair(|families, testbed| {
        let connection = IdleConnection::open(families, testbed, 7_104);
        let since = Instant::now();
        let backend = families.backend();
        testbed
            .agent
            .cli(&format!("service backend remove shop/web {backend}"));
        connection.expect_reset(since, RESET_TIMEOUT);
    });
}

/// Waits until the service's only backend is healthy, or unhealthy.
#[track_caller]
fn wait_for_health(testbed: &Testbed, healthy: bool) {
    wait::until_true(&format!("the backend's health to be {healthy}"), || {
        let service = testbed.agent.json("service show shop/web");
        service["status"]["backends"][0]["healthy"] == healthy
    });
}

#[test]
fn unhealthy_backend_gets_no_flows_until_it_recovers() {
    for_each_family_pair(|families, testbed| {
        // Health checks use the host's own stack, so the host needs an address in the provider's network.
        testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
        testbed.host.ip("address add fd00:1::1/64 dev gw-p nodad");
        let server = Nginx::start(&testbed.provider, &families.backend().to_string());
        testbed.agent.cli(
            "service update shop/web --health-check http --health-port 80 --health-path /name \
             --health-status 200 --health-interval 1 --health-timeout 1 --healthy-threshold 1 \
             --unhealthy-threshold 2 --unhealthy-flow-action reset",
        );
        wait_for_health(testbed, true);
        let url = families.url("name");
        let curl = || testbed.a.command_line(&format!("curl -sSf -m 5 {url}"));
        succeed(&mut curl());
        let connection = IdleConnection::open(families, testbed, 7_105);

        std::fs::remove_file(server.root().join("name")).expect("a file removed");
        let since = Instant::now();
        wait_for_health(testbed, false);
        connection.expect_reset(since, RESET_TIMEOUT);
        let error = fail(&mut curl());
        assert!(
            error.contains("Could not connect") || error.contains("Failed to connect"),
            "{error}"
        );
        let output = testbed.agent.cli("service show shop/web");
        assert!(
            output.contains("unhealthy: status 404 instead of 200"),
            "{output}"
        );

        std::fs::write(server.root().join("name"), "well\n").expect("a file");
        wait_for_health(testbed, true);
        assert_eq!(succeed(&mut curl()), "well\n");
    });
}

#[test]
fn closed_port_fails_the_tcp_check_and_flows_may_continue() {
    let families = Families::V4ToV4;
    let testbed = families.testbed();
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    let connection = IdleConnection::open(families, &testbed, 7_106);
    testbed.agent.cli(
        "service update shop/web --health-check tcp --health-port 9 --health-interval 1 \
         --unhealthy-threshold 1",
    );
    wait_for_health(&testbed, false);
    let flows = testbed.agent.cli("flow list");
    assert!(
        flows.contains("7106") && flows.contains("established"),
        "{flows}"
    );
    assert!(!connection.client.is_finished() && !connection.server.is_finished());
    testbed
        .agent
        .cli("service update shop/web --health-check none");
    wait::until_true("the health of the backend to be unknown", || {
        let service = testbed.agent.json("service show shop/web");
        service["status"]["backends"][0]["healthy"].is_null()
    });
    assert!(!connection.client.is_finished() && !connection.server.is_finished());
}

#[test]
fn https_health_checks_use_tls() {
    let families = Families::V6ToV4;
    let testbed = families.testbed();
    testbed.host.ip("address add 10.1.0.1/24 dev gw-p");
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    let (key, certificate) = (path("key"), path("certificate"));
    succeed(&mut testbed.provider.command_line(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=server -keyout {key} -out \
         {certificate}"
    )));
    testbed.agent.cli(
        "service update shop/web --health-check https --health-port 4443 --health-interval 1 \
         --healthy-threshold 1 --unhealthy-threshold 1",
    );
    wait_for_health(&testbed, false);
    let backend = families.backend();
    let mut server = testbed.provider.command_line(&format!(
        "openssl s_server -accept {backend}:4443 -key {key} -cert {certificate} -www -quiet"
    ));
    server
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let server = BackgroundProcess::start(&mut server).expect("a server");
    wait_for_health(&testbed, true);
    drop(server);
    wait_for_health(&testbed, false);
}

#[test]
fn snat_usage_is_reported() {
    for_each_family_pair(|families, testbed| {
        let connection = IdleConnection::open(families, testbed, 7_107);
        wait::until_true("the flow to be counted", || {
            let service = testbed.agent.json("service show shop/web");
            let nat = &service["status"]["nat_addresses"][0];
            nat["flows"] == 1
                && nat["ports_used"] == 1
                && nat["ports_free"] == 64_511
                && nat["scarce"] == false
        });
        let endpoint = testbed.agent.json("endpoint show a/web");
        assert_eq!(endpoint["status"]["flows"], 1);
        let output = testbed.agent.cli("service show shop/web");
        assert!(
            output.contains("SNAT ADDRESS") && output.contains("64511"),
            "{output}"
        );
        testbed.agent.cli("connection reject a/web");
        connection.expect_reset(Instant::now(), RESET_TIMEOUT);
    });
}
