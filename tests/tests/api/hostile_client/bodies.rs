//! Large, slow and unauthorized bodies.

use std::{
    io::{self, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{
    net::wait,
    services::api_fixture::{ApiFixture, HttpResponse, TlsClient, address, measure_latencies},
};

use crate::{MIB, fill_body, run_serially, worst_case_bodies};

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
