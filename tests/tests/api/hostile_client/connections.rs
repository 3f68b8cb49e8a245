//! Held connections of the listener and of the control socket.

use std::{
    fs, io,
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tests::{
    net::wait,
    services::api_fixture::{ApiFixture, TlsClient, address},
};

use crate::run_serially;

#[test]
fn clients_that_never_read_do_not_block_others() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[]);
    let token = fixture.create_token("b/good", "viewer");
    let config = fixture.tls_config(None);
    let held = {
        let config = Arc::clone(&config);
        fixture.host.run_in(move || {
            let mut held = Vec::new();
            for connection in 0..128 {
                // Eight addresses of one /64 that send requests, and more connections that send nothing.
                for number in 1..=8 {
                    if connection < 16
                        && let Ok(mut client) = TlsClient::connect(&config, address(0, number))
                    {
                        let _refused = client.send_request("GET", "/openapi.json", "", "");
                        held.push((Some(client), None));
                    }
                    if let Ok(stream) = TcpStream::connect(address(1 + connection % 6, number)) {
                        held.push((None, Some(stream)));
                    }
                }
            }
            held
        })
    };
    assert!(held.len() > 500, "{}", held.len());
    let connections = fixture.open_connections();
    assert!(
        connections <= 520,
        "{connections} unauthenticated connections"
    );
    let start = Instant::now();
    let answers = fixture.host.run_in(move || {
        // Authenticated clients are served at once, in another /64 and in the attackers' one.
        [address(7, 1), address(0, 1)].map(|to| {
            let mut client = TlsClient::connect(&config, to).expect("a connection");
            let answer = client.request("GET", "/v1/tenants/b", &token, "");
            answer.expect("an answer").status
        })
    });
    assert_eq!(answers, [200, 200]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    // The gateway closes idle connections.
    wait::until(
        "the end of idle connections",
        Duration::from_secs(60),
        || (fixture.open_connections() == 0).then_some(()),
    );
    drop(held);
    // The log has no line for each connection.
    let lines = fixture.agent.log().lines().count();
    assert!(lines < 60, "{lines} lines:\n{}", fixture.agent.log());
}

#[test]
fn connections_of_a_token_are_bounded_and_closed_on_revocation() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[
        ("PLGW_READS_PER_SECOND", "0"),
        ("PLGW_TENANT_READS_PER_SECOND", "0"),
        ("PLGW_UNAUTHENTICATED_PER_SECOND", "0"),
    ]);
    let hostile = fixture.create_token("a/hostile", "viewer");
    let good = fixture.create_token("b/good", "viewer");
    let config = fixture.tls_config(None);
    let (opened, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    // Each attacker has a /64 of its own. It keeps its connections alive and replaces the ones that it loses.
    let attackers: Vec<_> = (0..8)
        .map(|network| {
            let (config, hostile) = (Arc::clone(&config), hostile.clone());
            let (opened, stop) = (Arc::clone(&opened), Arc::clone(&stop));
            fixture.host.spawn(move || {
                let alive = |client: &mut TlsClient| {
                    let answer = client.request("GET", "/v1/whoami", &hostile, "");
                    answer.is_ok_and(|answer| answer.status == 200)
                };
                let mut held = Vec::new();
                let mut tried = 0;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..16 {
                        if held.len() < 128
                            && let Ok(mut client) = TlsClient::connect(&config, address(network, 1))
                            && alive(&mut client)
                        {
                            held.push(client);
                        }
                        tried += 1;
                    }
                    held.retain_mut(alive);
                    if tried == 128 {
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                }
                held
            })
        })
        .collect();
    wait::until("the attackers to connect", Duration::from_secs(120), || {
        (opened.load(Ordering::Relaxed) == 8).then_some(())
    });
    let victim = Arc::clone(&config);
    let took = fixture.host.run_in(move || {
        let start = Instant::now();
        let to = "127.0.0.1:8443".parse().expect("an address");
        let mut client = TlsClient::connect(&victim, to).expect("a connection");
        let answer = client.request("GET", "/v1/tenants/b", &good, "");
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        start.elapsed()
    });
    assert!(
        took < Duration::from_secs(5) * wait::timeout_factor(),
        "{took:?}"
    );
    stop.store(true, Ordering::Relaxed);
    let held = attackers.into_iter();
    let held: Vec<TlsClient> = held
        .flat_map(|thread| thread.join().expect("an attacker"))
        .collect();
    assert!(held.len() >= 128, "{} connections", held.len());
    fixture.agent.cli("tenant token revoke a/hostile");
    let closed = held.into_iter().filter_map(|mut client| {
        // The gateway may have closed the connection before, to make room for another.
        let answer = client.request("GET", "/v1/whoami", &hostile, "").ok()?;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.head.contains("connection: close"), "{answer:?}");
        client.wait_for_close().expect("a closed connection");
        Some(())
    });
    assert!(closed.count() >= 64);
    wait::until_true("all connections to be closed", || {
        fixture.open_connections() == 0
    });
}

#[test]
fn idle_control_socket_clients_do_not_block_others() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[]);
    let socket = fixture.agent.socket();
    let run = socket.parent().expect("a directory").to_owned();
    for (path, mode) in [
        (run.parent().expect("a directory"), 0o755),
        (run.as_path(), 0o755),
        (socket.as_path(), 0o666),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let held = thread::spawn(move || {
        // SAFETY: the call takes numbers only. The system call, unlike the C library's function, changes this thread
        // only.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 1_000, 1_000, 1_000) };
        assert_eq!(changed, 0, "setresuid failed");
        let connect = || UnixStream::connect(&socket);
        (0..400).filter_map(|_| connect().ok()).collect::<Vec<_>>()
    });
    let held = held.join().expect("connections");
    // The operator is served at once.
    let start = Instant::now();
    fixture.agent.cli("tenant list");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    // Connections beyond the user's bound are closed at once. The others are closed once they are idle for too long.
    let is_closed = |stream: &UnixStream| {
        stream.set_nonblocking(true).expect("a mode");
        !matches!(
            io::Read::read(&mut &*stream, &mut [0]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock
        )
    };
    let open = held.iter().filter(|stream| !is_closed(stream)).count();
    assert!(open <= 64, "{open} connections of one user");
    wait::until(
        "the end of idle connections",
        Duration::from_secs(60),
        || held.iter().all(is_closed).then_some(()),
    );
}
