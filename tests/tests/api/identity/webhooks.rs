//! Outbound requests of webhooks: the addresses that they may reach, and the errors that tenants see.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tests::{
    net::{namespace::Namespace, wait},
    services::tls_fixture::TlsFixture,
};

/// Starts a server that answers every request with 204. Returns its number of connections.
fn count_connections(listener: TcpListener) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut buffer = [0; 4_096];
            let _read = stream.read(&mut buffer);
            let _gone = stream.write_all(
                b"HTTP/1.1 204 Thanks\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            );
        }
    });
    count
}

#[test]
fn webhooks_do_not_reach_the_host_or_a_proxy_and_hide_the_failure_cause() {
    // Global addresses. The namespaces have no route out of the testbed.
    const OWN: &str = "1.2.3.4";
    const OTHER: &str = "1.2.3.5";
    let mut fixture = TlsFixture::start(|testbed, _, agent| {
        testbed.host.ip(&format!("address add {OWN}/24 dev gw-p"));
        testbed
            .provider
            .ip(&format!("address add {OTHER}/24 dev eth0"));
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            agent
                .settings
                .insert(name.to_owned(), "http://127.0.0.1:3128".to_owned());
        }
    });
    let bind = |namespace: &Namespace, address: &'static str| {
        let listener = namespace.run_in(move || TcpListener::bind(address));
        count_connections(listener.expect("a listener"))
    };
    let proxy = bind(&fixture.testbed.host, "127.0.0.1:3128");
    let own = bind(&fixture.testbed.host, "1.2.3.4:8080");
    let other = bind(&fixture.testbed.provider, "1.2.3.5:8080");
    // An open port of a server that does not speak HTTP.
    let silent = fixture
        .testbed
        .provider
        .run_in(|| TcpListener::bind("1.2.3.5:8081"));
    let silent = silent.expect("a listener");
    std::thread::spawn(move || {
        for mut stream in silent.incoming().flatten() {
            let _gone = stream.write_all(b"+OK ready\r\n");
        }
    });
    let agent = &fixture.testbed.agent;
    for (name, url) in [
        ("own", "http://1.2.3.4:8080/"),
        ("mapped", "http://[::ffff:1.2.3.4]:8080/"),
        ("name", "http://localhost:8080/"),
        ("none", "http://nowhere.invalid:8080/"),
        ("closed", "http://1.2.3.5:8082/"),
        ("silent", "http://1.2.3.5:8081/"),
        ("other", "http://1.2.3.5:8080/"),
    ] {
        agent.cli(&format!("tenant webhook create a/{name} --url {url}"));
    }
    let refusal = agent.cli_error("tenant webhook create a/ssh --url http://1.2.3.5:22/");
    assert!(
        refusal.contains("port 443, or a port above 1023"),
        "{refusal}"
    );
    agent.cli("endpoint create a/notified --network net --address 10.0.0.99 --service shop/web");
    let status = |name: &str| {
        let listed = agent.json("tenant webhook list a");
        let mut listed = listed.as_array().cloned().unwrap_or_default().into_iter();
        let found = listed.find(|webhook| webhook["name"] == name);
        found.expect("a webhook")["status"].clone()
    };
    wait::until_true("the allowed delivery", || {
        other.load(Ordering::Relaxed) > 0 && status("other")["last_error"].is_null()
    });
    let errors: Vec<String> = ["own", "mapped", "name", "none", "closed", "silent"]
        .into_iter()
        .map(|name| {
            wait::until(name, Duration::from_secs(60), || {
                status(name)["last_error"].as_str().map(str::to_owned)
            })
        })
        .collect();
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    assert!(!errors[0].contains("1.2.3"), "{}", errors[0]);
    assert_eq!(own.load(Ordering::Relaxed), 0, "connections to the gateway");
    assert_eq!(proxy.load(Ordering::Relaxed), 0, "connections to the proxy");
    assert!(other.load(Ordering::Relaxed) > 0);
    // The operator's log has the cause.
    let log = agent.log();
    assert!(
        log.contains("webhook=a/own reason=unreachable: no webhook may be at 1.2.3.4"),
        "{log}"
    );
    // An allowed network does not open the gateway's own addresses in it.
    fixture.testbed.agent.stop();
    fixture
        .testbed
        .agent
        .settings
        .insert("PLGW_WEBHOOK_NETWORKS".to_owned(), "1.2.3.0/24".to_owned());
    fixture.testbed.agent.restart();
    let agent = &fixture.testbed.agent;
    wait::until("another attempt", Duration::from_secs(60), || {
        let listed = agent.json("tenant webhook list a");
        let listed = listed.as_array().cloned().unwrap_or_default();
        let own = listed.iter().find(|webhook| webhook["name"] == "own");
        (own?["status"]["failures"].as_u64()? > 0).then_some(())
    });
    assert_eq!(own.load(Ordering::Relaxed), 0, "connections to the gateway");
}
