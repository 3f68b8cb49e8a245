//! Draining with a deadline, and back.

use std::{
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use tests::net::{
    families::{Families, for_each_family_pair},
    wait,
};

use crate::servers::{TcpServer, echo};

/// Reads until the connection ends, and returns how it did.
fn end_of(mut stream: TcpStream) -> Result<usize, ErrorKind> {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a stream");
    stream.read(&mut [0; 16]).map_err(|error| error.kind())
}

#[test]
fn a_drain_deadline_resets_both_ends_of_open_flows() {
    for_each_family_pair(|families, testbed| {
        let agent = &testbed.agent;
        let backend = families.backend();
        let address = SocketAddr::new(backend, 7_401);
        let listener = testbed.provider.run_in(move || TcpListener::bind(address));
        let listener = listener.expect("a listener");
        let endpoint = SocketAddr::new(families.endpoint(), 7_401);
        let client = testbed.a.run_in(move || TcpStream::connect(endpoint));
        let client = client.expect("a connection");
        let (server, _) = listener.accept().expect("a client");
        let ends = [client, server].map(|end| std::thread::spawn(move || end_of(end)));

        let refusal = agent.cli_error(&format!("service backend undrain shop/web {backend}"));
        assert!(refusal.contains("is not draining"), "{refusal}");
        let refusal = agent.cli_error(&format!("service backend add shop/web {backend}"));
        assert!(refusal.contains("already, with weight 1"), "{refusal}");
        agent.cli(&format!(
            "service backend drain shop/web {backend} --deadline 4s"
        ));
        let since = Instant::now();
        // The flow is shown as one that is left, and continues until the deadline.
        wait::until_true("the flow to be counted", || {
            let service = agent.json("service show shop/web");
            service["status"]["backends"][0]["flows"] == 1
        });
        assert!(
            agent
                .cli("service show shop/web")
                .contains("draining until")
        );
        assert!(ends.iter().all(|end| !end.is_finished()));
        for end in ends {
            let end = end.join().expect("an end");
            assert_eq!(end, Err(ErrorKind::ConnectionReset));
        }
        let elapsed = since.elapsed();
        let limit = Duration::from_secs(3);
        assert!(elapsed >= limit, "reset {elapsed:?} after the command");
        assert!(
            elapsed < Duration::from_secs(9) * wait::timeout_factor(),
            "reset {elapsed:?} after the command"
        );
        wait::until_true("the flow to be gone", || {
            let service = agent.json("service show shop/web");
            service["status"]["backends"][0]["flows"] == 0
        });
        assert!(agent.cli("service show shop/web").contains("drained: "));

        drop(listener);
        let _server = TcpServer::start(&testbed.provider, address);
        let refused = echo(&testbed.a, endpoint);
        assert!(refused.is_err(), "a draining backend got a flow");
        agent.cli(&format!("service backend undrain shop/web {backend}"));
        echo(&testbed.a, endpoint).expect("an echo");
    });
}

#[test]
fn an_expired_deadline_holds_over_a_restart() {
    let families = Families::V4ToV4;
    let mut testbed = families.testbed();
    let backend = families.backend();
    let agent = &mut testbed.agent;
    agent.cli(&format!(
        "service backend drain shop/web {backend} --deadline 0s"
    ));
    agent.stop();
    agent.restart();
    let shown = agent.cli("service show shop/web");
    assert!(shown.contains("drained: "), "{shown}");
    let address = SocketAddr::new(backend, 7_402);
    let _server = TcpServer::start(&testbed.provider, address);
    let endpoint = SocketAddr::new(families.endpoint(), 7_402);
    assert!(echo(&testbed.a, endpoint).is_err());
}
