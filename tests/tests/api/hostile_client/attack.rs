//! All attacks at once, while another tenant's requests are timed.

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tests::services::api_fixture::{ApiFixture, TlsClient, address, measure_latencies};

use crate::{MIB, run_serially, worst_case_bodies};

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
