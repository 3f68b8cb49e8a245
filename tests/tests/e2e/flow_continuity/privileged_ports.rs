//! Servers that accept clients with a privileged source port only, as NFS servers with `secure` exports do.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use tests::net::{
    tcp_client::{connect_from, reset_on_close},
    topology::{BACKENDS, CLIENT, ENDPOINT, Testbed},
    wait,
};

const PORT: u16 = 7_430;

/// Connects from a source port, and returns what the server says: the port that it sees, or nothing if it refuses.
fn ask(testbed: &Testbed, port: u16) -> Option<u16> {
    testbed.a.run_in(move || {
        let source = format!("{CLIENT}:{port}").parse().expect("an address");
        let endpoint = format!("{ENDPOINT}:{PORT}").parse().expect("an address");
        let limit = Duration::from_secs(3) * wait::timeout_factor();
        let mut stream = connect_from(source, endpoint, limit).expect("a connection");
        let mut answer = String::new();
        let result = stream.read_to_string(&mut answer);
        reset_on_close(&stream).expect("a stream");
        result.ok()?;
        answer.parse().ok()
    })
}

#[test]
fn server_that_demands_a_privileged_port_accepts_clients_with_one() {
    let testbed = Testbed::with_approved_connections();
    for address in BACKENDS {
        let listener = testbed
            .provider
            .run_in(move || TcpListener::bind((address, PORT)))
            .expect("a listener");
        std::thread::spawn(move || {
            while let Ok((mut stream, client)) = listener.accept() {
                if client.port() < 1_024 {
                    // The client may be gone.
                    let _sent = write!(stream, "{}", client.port());
                }
            }
        });
    }
    assert_eq!(ask(&testbed, 700), None, "refused by default");
    testbed
        .agent
        .cli("service update shop/web --preserve-privileged-ports true");
    for port in [701, 1_023, 1] {
        let seen = ask(&testbed, port);
        assert!(
            seen.is_some_and(|seen| (512..1_024).contains(&seen)),
            "{port}: {seen:?}"
        );
    }
    assert_eq!(ask(&testbed, 1_024), None, "no privileged port for others");
    let shown = testbed.agent.cli("service show shop/web");
    assert!(shown.contains("512 to 1023"), "{shown}");
}
