//! The limit of concurrent flows, after many short connections under the agent's garbage collection.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tests::net::{
    tcp_client::reset_on_close,
    topology::{ENDPOINT, Testbed},
    wait,
};

use super::start_tcp_echo;

const PORT: u16 = 7_440;

/// Limit of concurrent flows.
const LIMIT: usize = 10;

/// Time in which short connections are opened. The agent of the tests collects flows each second.
const CHURN: Duration = Duration::from_secs(6);

#[test]
fn connection_limit_is_exact_after_short_connections_under_garbage_collection() {
    let testbed = Testbed::with_approved_connections();
    start_tcp_echo(&testbed.provider, PORT);
    // A SYN that is lost leaves a flow that must expire before the counts are judged.
    testbed
        .agent
        .cli("service update shop/web --tcp-transitory-timeout 5");
    let endpoint: SocketAddr = format!("{ENDPOINT}:{PORT}").parse().expect("an address");
    let (running, opened) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (running, opened) = (Arc::clone(&running), Arc::clone(&opened));
            testbed.a.spawn(move || {
                while running.load(Ordering::Relaxed) {
                    if let Ok(stream) =
                        TcpStream::connect_timeout(&endpoint, Duration::from_secs(1))
                    {
                        opened.fetch_add(1, Ordering::Relaxed);
                        reset_on_close(&stream).expect("a stream");
                    }
                }
            })
        })
        .collect();
    let since = Instant::now();
    wait::until_true("six seconds of short connections", || {
        since.elapsed() > CHURN
    });
    running.store(false, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a client");
    }
    println!("{} short connections", opened.load(Ordering::Relaxed));
    let flows = || testbed.agent.json("endpoint show a/web")["status"]["flows"].clone();
    // A reset closes a flow at once.
    wait::until_true("all flows to be closed", || flows() == 0);
    testbed.agent.cli(&format!(
        "service update shop/web --connection-limit {LIMIT}"
    ));
    let open: Vec<_> = testbed.a.run_in(move || {
        let connect = || TcpStream::connect_timeout(&endpoint, Duration::from_millis(500));
        (0..LIMIT + 2).filter_map(|_| connect().ok()).collect()
    });
    assert_eq!(open.len(), LIMIT, "{} now", flows());
    assert_eq!(flows(), LIMIT);
}
