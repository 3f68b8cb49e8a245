//! The TLS listener: its certificate, its bounds on connections, and the capabilities of its process.

use std::{fs, sync::Arc};

use tests::{
    net::{namespace::Namespace, process::fail, wait},
    services::{
        agent::Agent,
        tls_fixture::{LISTEN, TlsFixture},
    },
};

#[test]
fn new_certificate_is_loaded_without_a_restart() {
    let mut fixture = TlsFixture::start(|_, _, _| {});
    let subject = |fixture: &TlsFixture| {
        let mut curl = fixture.testbed.host.command("curl");
        curl.args(["-sSv", "-m", "20", "--cacert"]);
        curl.arg(fixture.ca.certificate());
        curl.arg(format!("https://{LISTEN}/healthz"));
        let output = curl.output().expect("curl");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(subject(&fixture).contains("CN=gateway"));
    let old = fixture.ca.directory().join("gateway.pem");
    // An invalid file leaves the old certificate in use.
    let good = fs::read(&old).expect("a file");
    fs::write(&old, "not a certificate").expect("a file");
    fixture.testbed.agent.send_sighup();
    wait::until_true("the refusal", || {
        fixture
            .testbed
            .agent
            .log()
            .contains("keeping the old certificate")
    });
    assert!(subject(&fixture).contains("CN=gateway"));
    fs::write(&old, good).expect("a file");
    let new = fixture.ca.issue("renewed");
    fs::copy(&new.certificate, &old).expect("a copy");
    fs::copy(&new.key, fixture.ca.directory().join("gateway.key")).expect("a copy");
    fixture.testbed.agent.send_sighup();
    wait::until_true("the new certificate", || {
        subject(&fixture).contains("CN=renewed")
    });
}

#[test]
fn slow_and_broken_clients_do_not_block_others() {
    let fixture = TlsFixture::start(|_, _, _| {});
    // Half of the connections send nothing; the others send HTTP without TLS.
    let held = fixture.testbed.host.run_in(|| {
        let mut held = Vec::new();
        for number in 0..300 {
            let mut stream = std::net::TcpStream::connect(LISTEN).expect("a connection");
            if number % 2 == 0 {
                use std::io::Write as _;
                stream
                    .write_all(b"GET / HTTP/1.1\r\n\r\n")
                    .expect("a write");
            }
            held.push(stream);
        }
        held
    });
    // The first address has reached its bound on connections; another one is served.
    let other_address = ["--interface", "127.0.0.2"];
    assert_eq!(fixture.curl("GET", "/healthz", &other_address).0, 200);
    drop(held);
    wait::until_true("the first address to be served again", || {
        let mut curl = fixture.testbed.host.command("curl");
        curl.args(["-sS", "-m", "5", "--cacert"])
            .arg(fixture.ca.certificate());
        let output = curl.arg(format!("https://{LISTEN}/healthz")).output();
        output.is_ok_and(|output| output.status.success())
    });
}

#[test]
fn listener_without_a_certificate_is_refused() {
    let host = Arc::new(Namespace::new("gw"));
    let agent = Agent::prepare(&host);
    let mut command = agent.run_command();
    command.env("PLGW_LISTEN", LISTEN);
    let refusal = fail(&mut command);
    assert!(
        refusal.contains("needs tls_certificate and tls_key"),
        "{refusal}"
    );
    let mut command = agent.run_command();
    command.env("PLGW_LISTEN", LISTEN);
    command.env("PLGW_TLS_CERTIFICATE", "/nowhere.pem");
    command.env("PLGW_TLS_KEY", "/nowhere.key");
    let refusal = fail(&mut command);
    assert!(refusal.contains("/nowhere.pem can't be read"), "{refusal}");
}

#[test]
fn agent_drops_unneeded_capabilities() {
    let fixture = TlsFixture::start(|_, _, _| {});
    let status = fs::read_to_string(format!("/proc/{}/status", fixture.testbed.agent.pid()));
    let status = status.expect("the agent's status");
    let field = |name: &str| {
        let mut lines = status.lines();
        let line = lines
            .find_map(|line| line.strip_prefix(name))
            .expect("a field");
        line.trim_start_matches(':').trim().to_owned()
    };
    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39 (linux/capability.h).
    let kept = 1u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let has = u64::from_str_radix(&field(set), 16).expect("a number");
        assert_eq!(has & !kept, 0, "{set}: {has:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    // Every thread has dropped them.
    let threads =
        fs::read_dir(format!("/proc/{}/task", fixture.testbed.agent.pid())).expect("threads");
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("a status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let has = u64::from_str_radix(effective.expect("a set").trim(), 16).expect("a number");
        assert_eq!(has & !kept, 0, "{thread:?}: {has:x}");
    }
    // The command line, which every process can read, holds no token.
    let line = fs::read(format!("/proc/{}/cmdline", fixture.testbed.agent.pid())).expect("a line");
    assert!(!String::from_utf8_lossy(&line).contains("gwt_"));
}
