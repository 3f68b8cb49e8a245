//! Hostile clients: large and slow bodies, held connections, unlimited streams and requests.

use std::{
    fs, io,
    io::Write as _,
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use serde_json::{Value, json};
use tests::{
    net::{process::succeed, wait},
    services::{
        agent::binary,
        api_fixture::{ApiFixture, HttpResponse, TlsClient, address, measure_latencies},
    },
};

const MIB: usize = 1 << 20;

/// A lock that each test holds. The tests measure latencies and memory, so they must not run at the same time.
static SERIAL: Mutex<()> = Mutex::new(());

/// Waits until no other test of this file runs.
fn run_serially() -> MutexGuard<'static, ()> {
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Repeats a part between head and tail until the text has about `bytes` bytes.
fn fill_body(head: &str, part: impl Fn(usize) -> String, tail: &str, bytes: usize) -> String {
    let mut text = head.to_owned();
    let mut number = 0;
    while text.len() + tail.len() + 64 < bytes {
        if number > 0 {
            text.push(',');
        }
        text.push_str(&part(number));
        number += 1;
    }
    text.push_str(tail);
    text
}

/// Returns bodies of about `bytes` bytes that are chosen to use the most memory in different parts of the decoder.
fn worst_case_bodies(bytes: usize) -> Vec<(&'static str, String)> {
    let labels = |_| {
        let labels: Vec<String> = (0..64).map(|n| format!(r#""label{n}":"value""#)).collect();
        format!(r#"{{"labels":{{{}}}}}"#, labels.join(","))
    };
    let plain = |text: &'static str| move |_| text.to_owned();
    let long = "x".repeat(bytes - 256);
    vec![
        (
            "tiny objects with an unknown key",
            fill_body(r#"{"connections":["#, plain(r#"{"":0}"#), "]}", bytes),
        ),
        (
            "tiny objects",
            fill_body(r#"{"tenants":["#, plain("{}"), "]}", bytes),
        ),
        (
            "unknown keys",
            fill_body("{", |number| format!(r#""k{number}":0"#), "}", bytes),
        ),
        ("labels", fill_body(r#"{"tenants":["#, labels, "]}", bytes)),
        (
            "connections",
            fill_body(
                r#"{"connections":["#,
                |number| format!(r#"{{"endpoint":"a/e{number}","state":"Approved"}}"#),
                "]}",
                bytes,
            ),
        ),
        (
            "buffered lists",
            fill_body(
                r#"{"services":[{"tenant":"a","nat_addresses":["#,
                plain(r#"[[],[],[],[],[]]"#),
                "]}]}",
                bytes,
            ),
        ),
        (
            "a long text",
            format!(r#"{{"endpoints":[{{"tenant":"a","service":"{long}"}}]}}"#),
        ),
        ("a long key", format!(r#"{{"{long}":0}}"#)),
        ("deep nesting", "[".repeat(bytes / 2)),
    ]
}

#[test]
fn body_of_an_unauthorized_caller_is_not_read() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[]);
    let config = fixture.tls_config(Some(&fixture.ca.issue("nobody")));
    fixture.host.run_in(move || {
        let request = |method: &str, path: &str| {
            let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
            // The body is announced but never sent, so a response proves that the gateway did not wait for it.
            client.send_head(method, path, "", 4 * MIB).expect("a head");
            client.read_response().expect("an answer")
        };
        for (method, path, status) in [
            ("POST", "/v1/apply", 403),
            ("POST", "/v1/restore", 403),
            ("POST", "/v1/tenants", 403),
            ("POST", "/v1/tenants/a/endpoints", 404),
            ("PUT", "/v1/tenants/a/services/web", 404),
            ("POST", "/v1/tenants/a/tokens", 404),
        ] {
            let HttpResponse {
                status: got, body, ..
            } = request(method, path);
            assert_eq!(got, status, "{method} {path}: {body}");
        }
        let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
        let answer = client
            .request("GET", "/v1/whoami", "", "")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn credential_revoked_during_the_body_changes_nothing() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[]);
    let token = fixture.create_token("a/slow", "admin");
    let config = fixture.tls_config(None);
    let body = json!({ "name": "late", "role": "admin" }).to_string();
    let (head, rest) = (body.as_bytes()[..5].to_vec(), body.as_bytes()[5..].to_vec());
    let length = body.len();
    let mut client = fixture.host.run_in(move || {
        let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
        client
            .send_head("POST", "/v1/tenants/a/tokens", &token, length)
            .expect("a head");
        client.send(&head).expect("a first part");
        client
    });
    fixture.agent.cli("tenant token revoke a/slow");
    client.send(&rest).expect("a second part");
    let answer = client.read_response().expect("an answer");
    assert_eq!(answer.status, 401, "{answer:?}");
    let tokens = fixture.agent.cli("tenant token list a");
    assert!(!tokens.contains("late"), "{tokens}");
}

/// Sends the worst-case bodies, four at a time. Returns the growth of the agent's resident memory in MiB: at its peak,
/// and afterwards.
fn memory_growth(
    fixture: &ApiFixture,
    send: impl Fn(&str) -> u16 + Send + Sync + 'static,
    bytes: usize,
) -> (u64, u64) {
    let send = Arc::new(send);
    let before = fixture.resident_memory();
    fixture.reset_peak_memory();
    for (what, body) in worst_case_bodies(bytes) {
        let body: Arc<str> = body.into();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let (send, body) = (Arc::clone(&send), Arc::clone(&body));
                fixture.host.spawn(move || send(&body))
            })
            .collect();
        for thread in senders {
            let status = thread.join().expect("an answer");
            assert!(
                [400, 404, 403, 413, 422, 429, 503].contains(&status),
                "{what}: {status}"
            );
        }
        eprintln!(
            "{what}: peak {} MiB, before {before} MiB",
            fixture.peak_memory()
        );
    }
    let peak = fixture.peak_memory().saturating_sub(before);
    // The agent returns the memory soon after the last request.
    let after = wait::until("the memory to be returned", wait::DEFAULT_TIMEOUT, || {
        let after = fixture.resident_memory().saturating_sub(before);
        (after < 30).then_some(after)
    });
    (peak, after)
}

#[test]
fn worst_case_bodies_use_bounded_memory() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[
        ("PLGW_CHANGES_PER_SECOND", "0"),
        ("PLGW_TENANT_CHANGES_PER_SECOND", "0"),
        ("PLGW_UNAUTHENTICATED_PER_SECOND", "0"),
    ]);
    let config = fixture.tls_config(None);
    let health = |quiet: Option<Duration>, done: Arc<AtomicBool>| {
        let config = Arc::clone(&config);
        let start = Instant::now();
        fixture.host.spawn(move || {
            measure_latencies(&config, address(7, 1), "/healthz", "", || match quiet {
                Some(time) => start.elapsed() > time,
                None => done.load(Ordering::Relaxed),
            })
        })
    };
    let quiet = health(Some(Duration::from_secs(4)), Arc::default());
    let quiet = quiet.join().expect("answers");
    let done = Arc::new(AtomicBool::new(false));
    let attacked = health(None, Arc::clone(&done));
    for role in ["viewer", "admin"] {
        let token = fixture.create_token(&format!("a/{role}"), role);
        let config = fixture.tls_config(None);
        let send = move |body: &str| {
            let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
            // The gateway may refuse the request before all of the body is sent.
            let _broken = client.send_request("POST", "/v1/apply", &token, body);
            client.read_response().expect("an answer").status
        };
        let (peak, after) = memory_growth(&fixture, send, 4 * MIB);
        eprintln!("{role}: grew by {peak} MiB, kept {after} MiB");
        assert!(peak < 150, "{role}: {peak} MiB");
    }
    let socket = fixture.agent.socket();
    let send = move |body: &str| {
        let mut stream = UnixStream::connect(&socket).expect("the socket");
        let head = format!(
            "POST /v1/apply HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _broken = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body.as_bytes()));
        let mut line = String::new();
        let mut reader = io::BufReader::new(stream);
        io::BufRead::read_line(&mut reader, &mut line).expect("an answer");
        line.split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a status")
    };
    let (peak, after) = memory_growth(&fixture, send, 48 * MIB - 1_024);
    eprintln!("operator: grew by {peak} MiB, kept {after} MiB");
    // One operator's body may be 48 MiB long and take 72 MiB when decoded.
    assert!(peak < 150, "operator: {peak} MiB");
    done.store(true, Ordering::Relaxed);
    let attacked = attacked.join().expect("answers");
    eprintln!(
        "/healthz before: {}; during the attack: {}",
        quiet.summary(),
        attacked.summary()
    );
    attacked.expect_low_latency(&quiet);
}

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
fn stalled_large_bodies_are_refused_and_release_their_slot() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[]);
    for tenant in ["c", "d"] {
        fixture.agent.cli(&format!("tenant create {tenant}"));
    }
    let tokens = ["a/one", "b/one", "c/one"].map(|token| fixture.create_token(token, "admin"));
    let good = fixture.create_token("d/good", "admin");
    let config = fixture.tls_config(None);
    let large = fill_body(r#"{"tenants":["#, |_| "{}".to_owned(), "]}", 100 << 10);
    let stalled: Vec<TlsClient> = {
        let (config, large) = (Arc::clone(&config), large.clone());
        fixture.host.run_in(move || {
            let stall = |token: &String| {
                let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
                client
                    .send_head("POST", "/v1/apply", token, MIB)
                    .expect("a head");
                client
                    .send(&large.as_bytes()[..(64 << 10) + 1])
                    .expect("a first part");
                client
            };
            tokens
                .iter()
                .flat_map(|token| [stall(token), stall(token)])
                .collect()
        })
    };
    let (status, answer) = fixture.agent.http("POST", "/v1/apply", Some(&large));
    assert!(![429, 503].contains(&status), "operator: {status} {answer}");
    for mut client in stalled {
        let answer = client.read_response().expect("an answer");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("too slowly"), "{answer:?}");
    }
    let status = fixture.host.run_in(move || {
        let mut client = TlsClient::connect(&config, address(1, 1)).expect("a connection");
        let answer = client.request("POST", "/v1/apply", &good, &large);
        answer.expect("an answer").status
    });
    assert!(![429, 503].contains(&status), "{status}");
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

#[test]
fn request_rate_is_limited_per_principal_and_tenant() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[
        ("PLGW_CHANGES_PER_SECOND", "2"),
        ("PLGW_READS_PER_SECOND", "4"),
        ("PLGW_TENANT_CHANGES_PER_SECOND", "3"),
        ("PLGW_TENANT_READS_PER_SECOND", "0"),
        ("PLGW_UNAUTHENTICATED_PER_SECOND", "2"),
    ]);
    let [one, two] = ["a/one", "a/two"].map(|token| fixture.create_token(token, "admin"));
    let other = fixture.create_token("b/other", "admin");
    let config = fixture.tls_config(None);
    fixture.host.run_in(move || {
        let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
        let mut refused = |method: &str, path: &str, token: &str, max_requests: usize| {
            (0..max_requests).find_map(|_| {
                // No body, since the gateway may close a connection whose body it does not read.
                let answer = client.request(method, path, token, "").expect("an answer");
                (answer.status == 429).then_some(answer)
            })
        };
        // A burst holds four seconds' requests: eight changes. Requests that fail for another reason count, too.
        let answer = refused("DELETE", "/v1/tenants/a/tokens/none", &one, 200);
        let answer = answer.expect("a limit");
        assert!(answer.head.contains("retry-after: "), "{answer:?}");
        let problem: Value = serde_json::from_str(&answer.body).expect("a problem");
        assert_eq!(problem["code"], "rate_limited");
        // Another principal has a limit of its own, and the tenant's limit is reached soon, too.
        let answer = refused("DELETE", "/v1/tenants/a/tokens/none", &two, 200);
        assert!(answer.is_some());
        // Reads have separate limits, and so have the principals of other tenants.
        let answer = client
            .request("GET", "/v1/tenants/a", &one, "")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = client
            .request("DELETE", "/v1/tenants/b/tokens/none", &other, "")
            .expect("an answer");
        assert_eq!(answer.status, 404, "{answer:?}");
        // Requests without a valid credential count for their /64, and the connection is closed at the limit.
        let mut stranger = TlsClient::connect(&config, address(1, 1)).expect("a connection");
        let mut refused = None;
        for number in 0..200 {
            let mut neighbour =
                TlsClient::connect(&config, address(1, 1 + number % 8)).expect("a connection");
            let answer = neighbour
                .request("GET", "/v1/whoami", "gwt_unknown", "")
                .expect("an answer");
            if answer.status == 429 {
                neighbour.wait_for_close().expect("a closed connection");
                refused = Some(answer);
                break;
            }
            assert_eq!(answer.status, 401, "{answer:?}");
        }
        assert!(refused.expect("a limit").head.contains("retry-after: "));
        // An authenticated client at the same address is served.
        let answer = stranger
            .request("GET", "/v1/tenants/b", &other, "")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    // The operator has no rate limit.
    for _ in 0..20 {
        assert_eq!(
            fixture.agent.http("DELETE", "/v1/tenants/none", None).0,
            404
        );
    }
}

#[test]
fn cli_retries_after_rate_limiting() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[("PLGW_CHANGES_PER_SECOND", "1")]);
    let file = fixture.create_token_file("a/busy", "admin");
    let token = fs::read_to_string(&file)
        .expect("a token")
        .trim()
        .to_owned();
    let config = fixture.tls_config(None);
    fixture.host.run_in(move || {
        let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
        wait::until_true("the limit", || {
            let answer = client.request("DELETE", "/v1/tenants/a/tokens/none", &token, "");
            answer.expect("an answer").status == 429
        });
    });
    let mut command = fixture.host.command(&binary().display().to_string());
    command.args(["tenant", "token", "create", "a/more", "--role", "viewer"]);
    command.args(["--server", "https://127.0.0.1:8443", "--ca"]);
    command.arg(fixture.ca.certificate());
    command.arg("--token-file").arg(file);
    succeed(&mut command);
}

#[test]
fn streams_are_limited_per_principal_and_tenant() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[
        ("PLGW_STREAMS_PER_PRINCIPAL", "3"),
        ("PLGW_STREAMS_PER_TENANT", "4"),
    ]);
    let [one, two] = ["a/one", "a/two"].map(|token| fixture.create_token(token, "viewer"));
    let other = fixture.create_token("b/other", "viewer");
    let config = fixture.tls_config(None);
    fixture.host.run_in(move || {
        let follow = |token: &str| {
            let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
            client
                .send_request("GET", "/v1/events?follow=true", token, "")
                .expect("a request");
            let answer = client.read_response_head().expect("an answer");
            (answer, client)
        };
        let mut streams = Vec::new();
        for (token, status) in [
            (&one, 200),
            (&one, 200),
            (&one, 200),
            (&one, 429),
            (&two, 200),
            (&two, 429),
            (&other, 200),
        ] {
            let (answer, client) = follow(token);
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(status == 429, answer.head.contains("retry-after: "));
            streams.push(client);
        }
        // The end of one stream makes room for another.
        streams.truncate(2);
        wait::until_true("room for another stream", || {
            let (answer, client) = follow(&one);
            streams.push(client);
            answer.status == 200
        });
    });
}

#[test]
fn stream_and_connection_close_when_the_credential_is_revoked() {
    let _alone = run_serially();
    let fixture = ApiFixture::start(&[]);
    let ca = fixture.ca.certificate();
    fixture.agent.cli(&format!(
        "tenant identity create a/build --issuer certificate --claim dns --value build --authority {} \
         --role viewer",
        ca.display()
    ));
    let certificate = fixture.tls_config(Some(&fixture.ca.issue("build")));
    let config = fixture.tls_config(None);
    let revoked = fixture.create_token("a/revoked", "viewer");
    let follow = |config: &Arc<ClientConfig>, token: &str| {
        let (config, token) = (Arc::clone(config), token.to_owned());
        fixture.host.run_in(move || {
            let mut client = TlsClient::connect(&config, address(0, 1)).expect("a connection");
            client
                .send_request("GET", "/v1/events?follow=true", &token, "")
                .expect("a request");
            assert_eq!(client.read_response_head().expect("an answer").status, 200);
            client
        })
    };
    let at_once = Duration::from_secs(2) * wait::timeout_factor();
    let mut stream = follow(&config, &revoked);
    fixture.agent.cli("tenant token revoke a/revoked");
    let took = stream.wait_for_close().expect("a closed connection");
    assert!(took < at_once, "{took:?} after the revocation");
    // The stream ends when its principal loses its last role.
    let mut stream = follow(&certificate, "");
    fixture.agent.cli("tenant identity delete a/build");
    let took = stream.wait_for_close().expect("a closed connection");
    assert!(took < at_once, "{took:?} after the loss of the role");
    let to = fixture.ca.directory().join("short");
    fixture.agent.cli(&format!(
        "tenant token create a/short --role viewer --expires-in 3s --output-file {}",
        to.display()
    ));
    let created = Instant::now();
    let short = fs::read_to_string(to).expect("a token").trim().to_owned();
    let mut stream = follow(&config, &short);
    stream.wait_for_close().expect("a closed connection");
    let took = created.elapsed();
    assert!(
        took < Duration::from_secs(3) + at_once,
        "{took:?} after the expiry"
    );
}

/// A set of attackers, each a thread in the gateway's network namespace. They run until [`Attack::stop`].
struct Attack {
    stop: Arc<AtomicBool>,
    acts: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Attack {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            acts: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Adds an attacker that repeats `act`, which may fail.
    fn add(
        &mut self,
        fixture: &ApiFixture,
        act: impl Fn(usize, &AtomicBool) -> io::Result<()> + Send + 'static,
    ) {
        let (stop, acts) = (Arc::clone(&self.stop), Arc::clone(&self.acts));
        self.threads.push(fixture.host.spawn(move || {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let _refused = act(round, &stop);
                acts.fetch_add(1, Ordering::Relaxed);
                round += 1;
            }
        }));
    }

    /// Stops all attackers. Returns how often they acted.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("an attacker");
        }
        self.acts.load(Ordering::Relaxed)
    }
}

/// Sleeps for a time, but not beyond the end of the attack.
fn sleep_unless_stopped(time: Duration, stop: &AtomicBool) {
    let start = Instant::now();
    while start.elapsed() < time && !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn minute_long_attack_does_not_slow_other_tenants() {
    let _alone = run_serially();
    let seconds = std::env::var("PLGW_TEST_HOSTILE_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(60);
    let fixture = ApiFixture::start(&[]);
    let hostile = fixture.create_token("a/hostile", "viewer");
    let good = fixture.create_token("b/good", "viewer");
    let config = fixture.tls_config(None);
    let measured = |time: Duration| {
        let (config, good) = (Arc::clone(&config), good.clone());
        let start = Instant::now();
        fixture.host.spawn(move || {
            measure_latencies(&config, address(7, 1), "/v1/tenants/b", &good, || {
                start.elapsed() > time
            })
        })
    };
    let quiet = measured(Duration::from_secs(8)).join().expect("answers");
    fixture.reset_peak_memory();

    let mut attack = Attack::new();
    // Clients in one /64 that request a document and never read it.
    let of = Arc::clone(&config);
    attack.add(&fixture, move |round, stop| {
        let mut held = Vec::new();
        for number in 0..64 {
            let to = address(u16::from(round % 2 == 0), 1 + number % 8);
            let mut client = TlsClient::connect(&of, to)?;
            client.send_request("GET", "/openapi.json", "", "")?;
            held.push(client);
            sleep_unless_stopped(Duration::from_millis(50), stop);
        }
        sleep_unless_stopped(Duration::from_secs(5), stop);
        Ok(())
    });
    // Clients that send one byte a second, of a head or of a body.
    for head in [true, false] {
        let (of, hostile) = (Arc::clone(&config), hostile.clone());
        attack.add(&fixture, move |_, stop| {
            let mut clients = Vec::new();
            for number in 0..24 {
                let mut client = TlsClient::connect(&of, address(2, 1 + number % 8))?;
                if !head {
                    client.send_head("POST", "/v1/apply", &hostile, 4 * MIB)?;
                }
                clients.push(client);
            }
            for byte in b"GET /healthz HTTP/1.1".iter().cycle().take(40) {
                sleep_unless_stopped(Duration::from_secs(1), stop);
                for client in &mut clients {
                    let _gone = client.send(&[*byte]);
                }
            }
            Ok(())
        });
    }
    // Large bodies, two at a time.
    let bodies: Arc<Vec<String>> = Arc::new(
        worst_case_bodies(4 * MIB)
            .into_iter()
            .map(|(_, body)| body)
            .collect(),
    );
    for _ in 0..2 {
        let (of, hostile, bodies) = (Arc::clone(&config), hostile.clone(), Arc::clone(&bodies));
        attack.add(&fixture, move |round, stop| {
            let mut client = TlsClient::connect(&of, address(3, 1))?;
            let body = &bodies[round % bodies.len()];
            let _broken = client.send_request("POST", "/v1/apply", &hostile, body);
            let answer = client.read_response();
            sleep_unless_stopped(Duration::from_millis(100), stop);
            answer.map(drop)
        });
    }
    // Event streams.
    let (of, token) = (Arc::clone(&config), hostile.clone());
    attack.add(&fixture, move |_, stop| {
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut client = TlsClient::connect(&of, address(4, 1))?;
            client.send_request("GET", "/v1/events?follow=true", &token, "")?;
            held.push(client);
            sleep_unless_stopped(Duration::from_millis(50), stop);
        }
        Ok(())
    });
    // Handshakes from each /64 in turn, with unauthenticated requests.
    let of = Arc::clone(&config);
    attack.add(&fixture, move |round, stop| {
        let network = u16::try_from(round % 7).expect("a small number");
        let mut client = TlsClient::connect(&of, address(network, 2))?;
        let answer = client.request("GET", "/v1/tenants/b", "gwt_guess", "");
        sleep_unless_stopped(Duration::from_millis(20), stop);
        answer.map(drop)
    });
    // Connections that send nothing.
    attack.add(&fixture, move |round, stop| {
        let mut held = Vec::new();
        for number in 0..200_usize {
            let network = u16::try_from((round + number) % 7).expect("a small number");
            held.push(TcpStream::connect(address(network, 3))?);
            sleep_unless_stopped(Duration::from_millis(20), stop);
        }
        Ok(())
    });

    let time = Duration::from_secs(seconds);
    let watched = measured(time);
    // New connections of another tenant are served during the attack, too.
    let new_clients = {
        let (config, good) = (Arc::clone(&config), good.clone());
        let start = Instant::now();
        fixture.host.spawn(move || {
            let mut served = 0;
            while start.elapsed() < time {
                let mut client = TlsClient::connect(&config, address(7, 2)).expect("a connection");
                let answer = client
                    .request("GET", "/v1/whoami", &good, "")
                    .expect("an answer");
                assert_eq!(answer.status, 200, "{answer:?}");
                served += 1;
                thread::sleep(Duration::from_millis(500));
            }
            served
        })
    };
    let attacked = watched.join().expect("answers");
    let served: usize = new_clients.join().expect("answers");
    let acts = attack.stop();
    let peak = fixture.peak_memory();
    let lines = fixture.agent.log().lines().count();
    eprintln!(
        "before: {}; during {acts} attacks: {}; {served} new connections; peak {peak} MiB; \
         {lines} log lines",
        quiet.summary(),
        attacked.summary()
    );
    assert!(peak < 250, "{peak} MiB");
    assert!(lines < 200, "{lines} lines:\n{}", fixture.agent.log());
    attacked.expect_low_latency(&quiet);
}
