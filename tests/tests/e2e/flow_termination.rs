//! How flows end: nobody hangs. And what keeps new ones from backends that are not well.

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
        process::{fail, succeed},
        topology::Testbed,
        wait,
    },
    services::nginx::Nginx,
};

/// How long a cut may take to be told. Machines are busy; it takes milliseconds.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);

/// How an end that only reads, and never sends, learned that its connection is over.
type ReadResult = Result<usize, ErrorKind>;

/// A connection that both ends only listen on, and the ends' outcomes.
struct IdleConnection {
    client: JoinHandle<ReadResult>,
    server: JoinHandle<ReadResult>,
}

/// Reads until something happens; gives up after half a minute, which no test waits for.
fn read_until_end(mut stream: &TcpStream) -> ReadResult {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a stream");
    stream.read(&mut [0; 16]).map_err(|error| error.kind())
}

impl IdleConnection {
    /// Opens it; some bytes go both ways first.
    fn open(families: Families, site: &Testbed, port: u16) -> Self {
        let address = SocketAddr::new(families.backend(), port);
        let (listens, listening) = mpsc::channel();
        let (opened, open) = mpsc::channel();
        let server = site.provider.spawn(move || {
            let listener = TcpListener::bind(address).expect("a listener");
            listens.send(()).expect("a test");
            let (mut stream, _) = listener.accept().expect("a client");
            let mut question = [0; 1_000];
            stream.read_exact(&mut question).expect("a question");
            stream.write_all(&question).expect("to answer");
            read_until_end(&stream)
        });
        listening.recv().expect("a listener");
        let endpoint = SocketAddr::new(families.endpoint(), port);
        let client = site.a.spawn(move || {
            let mut stream = TcpStream::connect(endpoint).expect("a connection");
            stream.write_all(&[7; 1_000]).expect("to ask");
            stream.read_exact(&mut [0; 1_000]).expect("an answer");
            opened.send(()).expect("a test");
            read_until_end(&stream)
        });
        open.recv().expect("an open connection");
        Self { client, server }
    }

    /// Both ends were reset, so soon after this moment.
    #[track_caller]
    fn expect_reset(self, since: Instant, within: Duration) {
        for (end, outcome) in [("client", self.client), ("server", self.server)] {
            let outcome = outcome.join().expect("an end");
            assert_eq!(outcome, Err(ErrorKind::ConnectionReset), "the {end}");
            assert!(
                since.elapsed() < within * wait::timeout_factor(),
                "the {end}"
            );
        }
    }
}

#[test]
fn revocation_resets_both_ends_of_an_idle_connection() {
    for_each_family_pair(|families, site| {
        let silent = IdleConnection::open(families, site, 7_101);
        let cut = Instant::now();
        site.agent.cli("connection reject a/web --reason over");
        silent.expect_reset(cut, RESET_TIMEOUT);
    });
}

#[test]
fn endpoint_deletion_resets_both_ends() {
    let site = Families::V4ToV4.testbed();
    let silent = IdleConnection::open(Families::V4ToV4, &site, 7_102);
    let cut = Instant::now();
    site.agent.cli("endpoint delete a/web");
    silent.expect_reset(cut, RESET_TIMEOUT);
}

#[test]
fn idle_timeout_resets_both_ends() {
    for_each_family_pair(|families, site| {
        site.agent
            .cli("service update shop/web --tcp-established-timeout 5");
        let silent = IdleConnection::open(families, site, 7_103);
        // Five seconds, a tick, and a sweep.
        silent.expect_reset(Instant::now(), Duration::from_secs(15));
        assert!(!site.agent.cli("flow list").contains("7103"));
    });
}

#[test]
fn backend_removal_resets_both_ends() {
    for_each_family_pair(|families, site| {
        let silent = IdleConnection::open(families, site, 7_104);
        let cut = Instant::now();
        let backend = families.backend();
        site.agent
            .cli(&format!("service backend remove shop/web {backend}"));
        silent.expect_reset(cut, RESET_TIMEOUT);
    });
}

/// Waits until the service's backend is in this state.
#[track_caller]
fn wait_for_health(site: &Testbed, healthy: bool) {
    wait::until_true(&format!("the backend's health to be {healthy}"), || {
        let service = site.agent.json("service show shop/web");
        service["status"]["backends"][0]["healthy"] == healthy
    });
}

#[test]
fn unhealthy_backend_gets_no_flows_until_it_recovers() {
    for_each_family_pair(|families, site| {
        // The host asks by itself, so it needs an address in the provider's network.
        site.host.ip("address add 10.1.0.1/24 dev gw-p");
        site.host.ip("address add fd00:1::1/64 dev gw-p nodad");
        let server = Nginx::start(&site.provider, &families.backend().to_string());
        site.agent.cli(
            "service update shop/web --health-check http --health-port 80 --health-path /name \
             --health-status 200 --health-interval 1 --health-timeout 1 --healthy-threshold 1 \
             --unhealthy-threshold 2 --unhealthy-flow-action reset",
        );
        wait_for_health(site, true);
        let url = families.url("name");
        let curl = || site.a.command_line(&format!("curl -sSf -m 5 {url}"));
        succeed(&mut curl());
        let silent = IdleConnection::open(families, site, 7_105);

        std::fs::remove_file(server.root().join("name")).expect("a file removed");
        let cut = Instant::now();
        wait_for_health(site, false);
        silent.expect_reset(cut, RESET_TIMEOUT);
        let refused = fail(&mut curl());
        assert!(
            refused.contains("Could not connect") || refused.contains("Failed to connect"),
            "{refused}"
        );
        let output = site.agent.cli("service show shop/web");
        assert!(
            output.contains("unhealthy: status 404 instead of 200"),
            "{output}"
        );

        std::fs::write(server.root().join("name"), "well\n").expect("a file");
        wait_for_health(site, true);
        assert_eq!(succeed(&mut curl()), "well\n");
    });
}

#[test]
fn closed_port_fails_the_tcp_check_and_flows_may_continue() {
    let families = Families::V4ToV4;
    let site = families.testbed();
    site.host.ip("address add 10.1.0.1/24 dev gw-p");
    let silent = IdleConnection::open(families, &site, 7_106);
    site.agent.cli(
        "service update shop/web --health-check tcp --health-port 9 --health-interval 1 \
         --unhealthy-threshold 1",
    );
    wait_for_health(&site, false);
    let flows = site.agent.cli("flow list");
    assert!(
        flows.contains("7106") && flows.contains("established"),
        "{flows}"
    );
    assert!(!silent.client.is_finished() && !silent.server.is_finished());
    site.agent
        .cli("service update shop/web --health-check none");
    wait::until_true("the backend to count as well", || {
        let service = site.agent.json("service show shop/web");
        service["status"]["backends"][0]["healthy"].is_null()
    });
    assert!(!silent.client.is_finished() && !silent.server.is_finished());
}

#[test]
fn https_health_checks_use_tls() {
    let families = Families::V6ToV4;
    let site = families.testbed();
    site.host.ip("address add 10.1.0.1/24 dev gw-p");
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    let (key, certificate) = (path("key"), path("certificate"));
    succeed(&mut site.provider.command_line(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=server -keyout {key} -out \
         {certificate}"
    )));
    site.agent.cli(
        "service update shop/web --health-check https --health-port 4443 --health-interval 1 \
         --healthy-threshold 1 --unhealthy-threshold 1",
    );
    wait_for_health(&site, false);
    let backend = families.backend();
    let mut server = site.provider.command_line(&format!(
        "openssl s_server -accept {backend}:4443 -key {key} -cert {certificate} -www -quiet"
    ));
    server
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let server = tests::net::process::BackgroundProcess::start(&mut server).expect("a server");
    wait_for_health(&site, true);
    drop(server);
    wait_for_health(&site, false);
}

#[test]
fn snat_usage_is_reported() {
    for_each_family_pair(|families, site| {
        let silent = IdleConnection::open(families, site, 7_107);
        wait::until_true("the flow to be counted", || {
            let service = site.agent.json("service show shop/web");
            let nat = &service["status"]["nat_addresses"][0];
            nat["flows"] == 1
                && nat["ports_used"] == 1
                && nat["ports_free"] == 64_511
                && nat["scarce"] == false
        });
        let endpoint = site.agent.json("endpoint show a/web");
        assert_eq!(endpoint["status"]["flows"], 1);
        let output = site.agent.cli("service show shop/web");
        assert!(
            output.contains("SOURCE NAT") && output.contains("64511"),
            "{output}"
        );
        site.agent.cli("connection reject a/web");
        silent.expect_reset(Instant::now(), RESET_TIMEOUT);
    });
}
