//! Interoperability with common programs, for every pair of address families. Captures at both ends show that all
//! packets on the wire are valid.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use tests::{
    net::{
        capture::Capture,
        families::{Families, for_each_family_pair},
        namespace::Namespace,
        process::{BackgroundProcess, run, succeed},
        topology::Testbed,
        wait,
    },
    services::nginx::Nginx,
};

/// Lock of a running test: each uses the whole machine, so they run one after another.
static SERIAL: Mutex<()> = Mutex::new(());

/// Starts a server in the provider's namespace, and waits until it listens.
fn serve(provider: &Namespace, mut command: Command, listens: &str) -> BackgroundProcess {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let running = BackgroundProcess::start(&mut command).expect("a server");
    wait::until_true(&format!("a server on {listens}"), || {
        let sockets = succeed(&mut provider.command_line("ss -Hlntu"));
        sockets.contains(listens)
    });
    running
}

/// Runs Redis with its benchmark as the client.
fn redis(families: Families, testbed: &Testbed) {
    let (backend, endpoint) = (families.backend(), families.endpoint());
    let line = format!("redis-server --bind {backend} --port 6379 --protected-mode no --save");
    let mut command = testbed.provider.command_line(&line);
    // The empty value of --save disables snapshots on disk.
    command.arg("");
    let _server = serve(&testbed.provider, command, ":6379");
    let line = format!("redis-benchmark -h {endpoint} -q -n 1000 -c 20 -t ping_inline,set,get");
    let text = succeed(&mut testbed.a.command_line(&line));
    for command in ["PING_INLINE", "SET", "GET"] {
        let rate = format!("{command}: ");
        assert!(
            text.contains(&rate) && text.contains("requests per second"),
            "{text}"
        );
    }
}

/// Queries a DNS server for an answer that fits in one packet and one that is fragmented.
fn dns(families: Families, testbed: &Testbed) {
    let (backend, endpoint) = (families.backend(), families.endpoint());
    let txt_strings: Vec<String> = (0..14).map(|n| format!("{n:0>250}")).collect();
    let mut server = testbed.provider.command("dnsmasq");
    server
        .args(["-k", "-C", "/dev/null", "-p", "5300", "-z", "-R", "-h"])
        .args(["-u", "root", "--pid-file=", "--edns-packet-max=4096"])
        .args(["-a", &backend.to_string(), "--txt-record=small.test,one"])
        .arg(format!("--txt-record=big.test,{}", txt_strings.join(",")));
    let _server = serve(&testbed.provider, server, ":5300");
    for (name, wanted) in [("small", 1), ("big", txt_strings.len())] {
        let question = format!(
            "dig @{endpoint} -p 5300 +bufsize=4096 +ignore +notcp +short +tries=5 TXT {name}.test"
        );
        let text = succeed(&mut testbed.a.command_line(&question));
        assert_eq!(text.matches(" \"").count() + 1, wanted, "{name}: {text}");
    }
}

/// Runs iperf3 with TCP and UDP, in both directions.
fn iperf(families: Families, testbed: &Testbed) {
    let (backend, endpoint) = (families.backend(), families.endpoint());
    let server = testbed
        .provider
        .command_line(&format!("iperf3 -s -B {backend} -p 5201"));
    let _server = serve(&testbed.provider, server, ":5201");
    for more in [
        "-t 1",
        "-t 1 -R",
        "-t 1 -u -b 20M -l 1200",
        "-t 1 -u -b 20M -l 1200 -R",
    ] {
        let text = succeed(
            &mut testbed
                .a
                .command_line(&format!("iperf3 -J -c {endpoint} {more}")),
        );
        let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let end = &result["end"];
        let bytes = end["sum_received"]["bytes"]
            .as_f64()
            .or_else(|| end["sum"]["bytes"].as_f64());
        assert!(bytes > Some(500_000.0), "{more}: {text}");
    }
}

#[test]
fn redis_dns_iperf_curl_and_ping_work_with_clean_captures() {
    let _serial = SERIAL.lock();
    for_each_family_pair(|families, testbed| {
        let captures = [&testbed.a, &testbed.provider].map(Capture::start);
        let server = Nginx::start(&testbed.provider, &families.backend().to_string());
        std::fs::write(server.root().join("file"), vec![7; 300_000]).expect("a file");
        let url = families.url("file");
        succeed(
            &mut testbed
                .a
                .command_line(&format!("curl -sSf -m 30 -o /dev/null {url}")),
        );
        redis(families, testbed);
        dns(families, testbed);
        iperf(families, testbed);
        let endpoint = families.endpoint();
        succeed(
            &mut testbed
                .a
                .command_line(&format!("ping -c 2 -i 0.2 -W 2 -s 3000 {endpoint}")),
        );
        // tracepath causes ICMP errors of the gateway (hop limit exceeded) and of the server (port unreachable).
        let _any_status = run(
            &mut testbed
                .a
                .command_line(&format!("tracepath -n -m 2 {endpoint}")),
            Duration::from_secs(30),
        );
        for capture in captures {
            capture.expect_clean(4_000_000);
        }
        assert!(
            !testbed.agent.log().contains("ERROR"),
            "{}",
            testbed.agent.log()
        );
    });
}

/// Starts a server that echoes four bytes of each connection and closes it.
fn serve_short_connections(provider: &Namespace, address: SocketAddr) {
    // The server runs until the test process exits.
    provider.spawn(move || {
        let listener = TcpListener::bind(address).expect("a listener");
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut question = [0; 4];
            if stream.read_exact(&mut question).is_ok() {
                let _client_gone = stream.write_all(&question);
            }
        }
    });
}

#[test]
fn ten_thousand_short_connections_succeed() {
    const THREADS: u32 = 4;
    const EACH: u32 = 2_500;
    let _serial = SERIAL.lock();
    for_each_family_pair(|families, testbed| {
        serve_short_connections(
            &testbed.provider,
            SocketAddr::new(families.backend(), 7_007),
        );
        let endpoint = SocketAddr::new(families.endpoint(), 7_007);
        let clients: Vec<thread::JoinHandle<u32>> = (0..THREADS)
            .map(|thread| {
                testbed.a.spawn(move || {
                    wait::until_true("the server to listen", || {
                        TcpStream::connect(endpoint).is_ok()
                    });
                    let mut answered = 0;
                    for turn in 0..EACH {
                        let question = (thread << 16 | turn).to_be_bytes();
                        let mut stream = TcpStream::connect(endpoint).expect("a connection");
                        stream
                            .set_read_timeout(Some(Duration::from_secs(10)))
                            .expect("a stream");
                        stream.write_all(&question).expect("a sent request");
                        let mut answer = [0; 4];
                        stream.read_exact(&mut answer).expect("an answer");
                        answered += u32::from(answer == question);
                    }
                    answered
                })
            })
            .collect();
        let answered = clients
            .into_iter()
            .map(|client| client.join().expect("a client"));
        assert_eq!(answered.sum::<u32>(), THREADS * EACH);
    });
}
