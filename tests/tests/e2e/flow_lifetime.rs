//! The life of flows, with real sockets: flows of closed connections are given back and keep nobody out, flows of
//! open connections are never given back. The data path does both without the agent.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tests::{
    net::{
        namespace::Namespace,
        short_connections::{CLIENT_PORTS, Close, Load, Outcomes, Server},
        tcp_client::connect_from,
        topology::{BACKENDS, Testbed},
        wait,
    },
    services::agent::Agent,
};

/// Number of flows that the flow table of a family holds in the test that fills it several times.
const FLOW_TABLE_SIZE: u64 = 1 << 14;
/// Number of short connections in that test, unless `PLGW_TEST_CONNECTIONS` gives another one.
const TABLE_CONNECTIONS: u64 = 300_000;
const _: () = assert!(TABLE_CONNECTIONS > 4 * FLOW_TABLE_SIZE);

/// SNAT ports of one address towards one backend.
const SNAT_PORTS: u64 = 64_512;

/// The endpoint of both consumers, as in the testbed.
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// The client of open connections, as in the testbed. Short connections come from other addresses.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
/// The first address of clients with short connections.
const FIRST_LOAD_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
/// The number of addresses of a /24 from there.
const MAX_LOAD_CLIENTS: u64 = 154;

/// Port of short connections.
const SHORT_PORT: u16 = 8_080;
/// Port of connections that stay open.
const OPEN_PORT: u16 = 8_081;
/// Port of datagrams.
const UDP_PORT: u16 = 5_353;

/// Number of short connections at the same time.
const CONCURRENCY: usize = 8;

/// The flow limit of the tests of limits.
const FLOW_LIMIT: u16 = 10;
/// Time after which a connection's opening counts as dropped. A SYN is repeated once before.
const DROPPED: Duration = Duration::from_millis(1_500);
/// Time within which a connection opens, with two repeated SYNs.
const OPENED: Duration = Duration::from_secs(5);

static MACHINE: Mutex<()> = Mutex::new(());

/// Returns the right to load the machine. One test at a time has it, so that none waits for the processors that
/// another one uses.
fn use_machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the endpoint's address with a port.
const fn endpoint(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ENDPOINT, port)
}

/// Returns a testbed with approved connections, in which one SNAT address and one backend serve all flows.
#[track_caller]
fn one_snat_address() -> Testbed {
    let testbed = Testbed::with_approved_connections();
    let gone = BACKENDS[1];
    testbed
        .agent
        .cli(&format!("service backend remove shop/web {gone}"));
    testbed
        .agent
        .cli("service update shop/web --nat 10.1.0.64/32");
    testbed
}

/// Adds client addresses to a consumer's host, and returns them.
#[track_caller]
fn add_clients(consumer: &Namespace, count: u64) -> Vec<Ipv4Addr> {
    assert!(count <= MAX_LOAD_CLIENTS, "too many connections");
    // Ports in TIME_WAIT, for a minute after their connections.
    set_sysctl(consumer, "net/ipv4/tcp_max_tw_buckets", "4000000");
    let first = u32::from(FIRST_LOAD_CLIENT);
    let clients = (first..).take(usize::try_from(count).expect("a small number"));
    clients
        .map(|address| {
            let address = Ipv4Addr::from(address);
            consumer.ip(&format!("address add {address}/24 dev eth0"));
            address
        })
        .collect()
}

/// Sets a kernel parameter of a host.
#[track_caller]
fn set_sysctl(host: &Namespace, name: &str, value: &'static str) {
    let path = format!("/proc/sys/{name}");
    host.run_in(move || std::fs::write(path, value))
        .expect("a kernel parameter");
}

/// Returns the load of short connections through the endpoint, each from a client address and port of its own.
fn short_connections(consumer: &Namespace, connections: u64, close: Close) -> Load {
    Load {
        destination: endpoint(SHORT_PORT),
        clients: add_clients(consumer, connections.div_ceil(CLIENT_PORTS)),
        connections,
        concurrency: CONCURRENCY,
        close,
    }
}

/// Asserts that all connections succeeded at both ends, and that the gateway sent no reset. A reset of an opening is no
/// failure at the ends, since the client repeats its SYN.
#[track_caller]
fn expect_all(connections: u64, client: &Outcomes, server: Server, agent: &Agent) {
    let server = server.stop();
    let status = agent.json("status");
    let (drops, statistics) = (&status["drops"], &status["statistics"]);
    let message = || format!("client: {client}\nserver: {server}\n{statistics}\ndrops: {drops}");
    assert_eq!(client.failed(), 0, "{}", message());
    assert_eq!(client.succeeded, connections, "{}", message());
    assert_eq!(server.failed(), 0, "{}", message());
    assert_eq!(server.succeeded, connections, "{}", message());
    assert_eq!(statistics["tcp_resets_sent"], 0, "{}", message());
}

/// A connection through the endpoint with both ends, which is open until it is closed or dropped.
struct OpenConnection {
    client: TcpStream,
    server: TcpStream,
}

impl OpenConnection {
    /// Returns a listener of open connections on all addresses of a host.
    fn listen(provider: &Namespace) -> TcpListener {
        provider
            .run_in(|| TcpListener::bind(("0.0.0.0", OPEN_PORT)))
            .expect("a listener")
    }

    /// Opens a connection from a port of the client, within a time limit.
    fn open(
        consumer: &Namespace,
        listener: &TcpListener,
        port: u16,
        limit: Duration,
    ) -> std::io::Result<Self> {
        let source = SocketAddrV4::new(CLIENT, port);
        let client = consumer.run_in(move || connect_from(source, endpoint(OPEN_PORT), limit))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(OPENED))?;
        }
        Ok(Self { client, server })
    }

    /// Asserts that data passes in both directions.
    #[track_caller]
    fn expect_data(&self) {
        let Self { client, server } = self;
        for (name, mut from, mut to) in [("service", client, server), ("consumer", server, client)]
        {
            let mut received = [0; 1_000];
            let result = from
                .write_all(&[0xa5; 1_000])
                .and_then(|()| to.read_exact(&mut received));
            assert!(result.is_ok(), "data to the {name}: {result:?}");
            assert_eq!(received, [0xa5; 1_000], "data to the {name}");
        }
    }

    /// Closes both ends, the client's end first. Both have received the other's FIN afterwards.
    #[track_caller]
    fn close(self) {
        let Self { client, server } = &self;
        for (from, mut to) in [(client, server), (server, client)] {
            from.shutdown(Shutdown::Write).expect("a FIN");
            assert_eq!(to.read(&mut [0; 16]).expect("the end"), 0);
        }
    }
}

/// Asserts that closed connections do not count against a limit of ten flows, and open ones do.
#[track_caller]
fn expect_limit_of_open_connections(testbed: &Testbed) {
    const SEQUENTIAL: u64 = 40;
    let server = Server::start(&testbed.provider, SHORT_PORT);
    let listener = OpenConnection::listen(&testbed.provider);
    let mut load = short_connections(&testbed.a, SEQUENTIAL, Close::ClientFirst);
    load.concurrency = 1;
    let client = load.run(&testbed.a);
    let server = server.stop();
    assert_eq!(
        (client.succeeded, server.succeeded),
        (SEQUENTIAL, SEQUENTIAL),
        "client: {client}\nserver: {server}"
    );

    let mut ports = 20_000..;
    let mut next_port = || ports.next().expect("a port");
    let mut open: Vec<_> = (0..FLOW_LIMIT)
        .map(|number| {
            OpenConnection::open(&testbed.a, &listener, next_port(), OPENED)
                .unwrap_or_else(|error| panic!("connection {number} at the same time: {error}"))
        })
        .collect();
    let refused = OpenConnection::open(&testbed.a, &listener, next_port(), DROPPED);
    let error = refused.err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::TimedOut), "one flow over the limit");
    for connection in &open {
        connection.expect_data();
    }

    // One connection ends, so one may open.
    open.pop().expect("a connection").close();
    let last = OpenConnection::open(&testbed.a, &listener, next_port(), OPENED)
        .expect("a connection in the place of a closed one");
    last.expect_data();
    let refused = OpenConnection::open(&testbed.a, &listener, next_port(), DROPPED);
    let error = refused.err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::TimedOut), "one flow over the limit");
    for connection in &open {
        connection.expect_data();
    }
}

#[test]
fn closed_connections_do_not_count_against_the_limit() {
    let _machine = use_machine();
    let testbed = Testbed::with_approved_connections();
    testbed.agent.cli(&format!(
        "service update shop/web --connection-limit {FLOW_LIMIT}"
    ));
    expect_limit_of_open_connections(&testbed);
    assert!(testbed.agent.drop_count("flow_limit") > 0);
}

#[test]
fn closed_connections_do_not_count_against_the_limit_without_the_agent() {
    let _machine = use_machine();
    let mut testbed = Testbed::with_approved_connections();
    testbed.agent.cli(&format!(
        "service update shop/web --connection-limit {FLOW_LIMIT}"
    ));
    testbed.agent.kill();
    expect_limit_of_open_connections(&testbed);
}

/// Opens more short connections than the SNAT address has ports, and asserts that all succeed.
#[track_caller]
fn expect_snat_ports_reused(connections: u64, close: Close) {
    assert!(connections > SNAT_PORTS);
    let testbed = one_snat_address();
    let server = Server::start(&testbed.provider, SHORT_PORT);
    let client = short_connections(&testbed.a, connections, close).run(&testbed.a);
    expect_all(connections, &client, server, &testbed.agent);
}

#[test]
fn snat_ports_of_connections_closed_by_clients_are_reused() {
    let _machine = use_machine();
    expect_snat_ports_reused(200_000, Close::ClientFirst);
}

#[test]
fn snat_ports_of_reset_connections_are_reused() {
    let _machine = use_machine();
    expect_snat_ports_reused(80_000, Close::Reset);
}

/// Opens more short connections than the SNAT address has ports, from this number of clients, and asserts that all
/// succeed although the server closes first. Its ends are in TIME_WAIT when their ports are reused.
#[track_caller]
fn expect_ports_in_time_wait_reused(connections: u64, clients: u64) {
    assert!(connections > SNAT_PORTS);
    let testbed = one_snat_address();
    let server = Server::start(&testbed.provider, SHORT_PORT);
    let load = Load {
        destination: endpoint(SHORT_PORT),
        clients: add_clients(&testbed.a, clients),
        connections,
        concurrency: CONCURRENCY,
        close: Close::ServerFirst,
    };
    let client = load.run(&testbed.a);
    expect_all(connections, &client, server, &testbed.agent);
}

/// Time stamps of one client ascend, so the server accepts a SYN for a port in TIME_WAIT.
#[test]
fn snat_ports_in_time_wait_at_the_server_are_reused_for_one_client() {
    let _machine = use_machine();
    expect_ports_in_time_wait_reused(80_000, 1);
}

/// Time stamps of different clients are unrelated. The server answers an earlier one by an ACK of the closed
/// connection, which the client resets before it repeats its SYN.
#[test]
fn snat_ports_in_time_wait_at_the_server_are_reused_for_other_clients() {
    const CLIENTS: u64 = 16;
    const REUSED: u64 = 10_000;
    let _machine = use_machine();
    expect_ports_in_time_wait_reused(SNAT_PORTS + REUSED, CLIENTS);
}

#[test]
fn snat_ports_are_reused_without_the_agent() {
    const CONNECTIONS: u64 = 80_000;
    let _machine = use_machine();
    let mut testbed = one_snat_address();
    let server = Server::start(&testbed.provider, SHORT_PORT);
    testbed.agent.kill();
    let client = short_connections(&testbed.a, CONNECTIONS, Close::ClientFirst).run(&testbed.a);
    // The agent reads the drop counters.
    testbed.agent.restart();
    expect_all(CONNECTIONS, &client, server, &testbed.agent);
}

#[test]
fn quiet_connections_outlive_short_ones_that_fill_the_table() {
    let given = std::env::var("PLGW_TEST_CONNECTIONS").ok();
    let connections = given.map_or(TABLE_CONNECTIONS, |text| text.parse().expect("a number"));
    let _machine = use_machine();
    let mut testbed = Testbed::with_approved_connections();
    resize_flow_table(&mut testbed.agent, FLOW_TABLE_SIZE);
    let listener = OpenConnection::listen(&testbed.provider);
    let quiet = [("another", &testbed.b), ("the same", &testbed.a)].map(|(whose, consumer)| {
        let connection = OpenConnection::open(consumer, &listener, 30_000, OPENED);
        (whose, connection.expect("a connection"))
    });
    for (_, connection) in &quiet {
        connection.expect_data();
    }
    let server = Server::start(&testbed.provider, SHORT_PORT);
    let client = short_connections(&testbed.a, connections, Close::ClientFirst).run(&testbed.a);
    for (whose, connection) in &quiet {
        println!("a quiet connection of {whose} tenant");
        connection.expect_data();
    }
    expect_all(connections, &client, server, &testbed.agent);
    for (_, connection) in quiet {
        connection.close();
    }
}

/// Restarts the agent with flow tables of this size.
#[track_caller]
fn resize_flow_table(agent: &mut Agent, size: u64) {
    let setting = "PLGW_FLOW_TABLE_SIZE".to_owned();
    agent.settings.insert(setting, size.to_string());
    agent.kill();
    agent.restart();
}

/// Sends datagrams from ports of the client until the server has received one of each.
#[track_caller]
fn expect_datagrams(testbed: &Testbed, server: &UdpSocket, ports: std::ops::Range<u16>) {
    for port in ports {
        let client = testbed
            .a
            .run_in(move || UdpSocket::bind((CLIENT, port)).expect("a socket"));
        wait::until(
            &format!("a datagram from port {port}"),
            Duration::from_secs(60),
            || {
                client
                    .send_to(&port.to_be_bytes(), endpoint(UDP_PORT))
                    .expect("a sent datagram");
                let mut received = [0; 2];
                server.recv(&mut received).ok()?;
                (received == port.to_be_bytes()).then_some(())
            },
        );
    }
}

#[test]
fn expired_flows_do_not_count_against_the_limit_without_the_agent() {
    let _machine = use_machine();
    let mut testbed = Testbed::with_approved_connections();
    testbed.agent.cli(&format!(
        "service update shop/web --connection-limit {FLOW_LIMIT} --udp-timeout 5"
    ));
    let server = testbed
        .provider
        .run_in(|| UdpSocket::bind(("0.0.0.0", UDP_PORT)).expect("a socket"));
    server
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a socket");
    // A small table is swept by few new flows.
    resize_flow_table(&mut testbed.agent, 1 << 10);
    testbed.agent.kill();
    // The flows of the first datagrams use up the limit. Those of the next ones open when the first have expired.
    let start = Instant::now();
    expect_datagrams(&testbed, &server, 20_000..20_000 + FLOW_LIMIT);
    expect_datagrams(&testbed, &server, 21_000..21_000 + FLOW_LIMIT);
    // Less than the timeout, by the resolution of coarse time.
    assert!(
        start.elapsed() > Duration::from_secs(3),
        "flows beyond the limit were admitted"
    );
}
