//! The scene of the tests: a consumer, and a provider with one backend of each family.

use std::{net::IpAddr, time::Duration};

use tests::net::{
    namespace::Namespace,
    process::{BackgroundProcess, run},
    topology::Testbed,
    wait,
};

use crate::meter::{Client, OutageMeter, start_echo_server};

/// A backend, the service that has it, and the endpoint of the service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    /// Name of the service and of the endpoint.
    pub(crate) name: &'static str,
    /// Address of the backend.
    pub(crate) address: &'static str,
    /// Address of the backend with the length of its prefix.
    pub(crate) assigned: &'static str,
    /// Address of the endpoint.
    pub(crate) endpoint: &'static str,
    /// The service's only SNAT address.
    pub(crate) snat: &'static str,
}

/// Backends of both families.
pub(crate) const BACKENDS: [Backend; 2] = [
    Backend {
        name: "web",
        address: "10.1.0.10",
        assigned: "10.1.0.10/24",
        endpoint: "10.0.0.100",
        snat: "10.1.0.64",
    },
    Backend {
        name: "web6",
        address: "fd00:1::10",
        assigned: "fd00:1::10/64",
        endpoint: "fd00::100",
        snat: "fd00:1::40",
    },
];

/// Longest outage that is accepted where nothing else is said.
const MAX_OUTAGE: Duration = Duration::from_secs(3);

/// The testbed with a service for each backend, and approved endpoints of consumer `a`.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) testbed: Testbed,
}

impl Scene {
    /// Returns a scene whose backends answer.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let scene = Self::without_configuration();
        scene.configure();
        for backend in BACKENDS {
            scene.wait_until_reachable(&backend);
        }
        scene
    }

    /// Returns a scene without objects. The gateway's interface in the provider's network has no address.
    #[track_caller]
    pub(crate) fn without_configuration() -> Self {
        let testbed = Testbed::unconfigured();
        testbed.a.enable_ipv6("eth0", &["fd00::5"]);
        testbed.provider.enable_ipv6("eth0", &["fd00:1::10"]);
        for backend in BACKENDS {
            start_echo_server(&testbed.provider, address(backend.address));
        }
        Self { testbed }
    }

    /// Creates the objects.
    #[track_caller]
    pub(crate) fn configure(&self) {
        let agent = &self.testbed.agent;
        for (tenant, interface) in [("a", "gw-a"), ("shop", "gw-p")] {
            agent.cli(&format!("tenant create {tenant}"));
            agent.cli(&format!(
                "network create {tenant}/net --interface {interface}"
            ));
        }
        for Backend {
            name,
            address,
            endpoint,
            snat,
            ..
        } in BACKENDS
        {
            agent.cli(&format!(
                "service create shop/{name} --network net --port */udp --port * --backend {address} --nat {snat} \
                 --visibility * --auto-approval *"
            ));
            agent.cli(&format!(
                "endpoint create a/{name} --network net --address {endpoint} --service shop/{name}"
            ));
        }
    }

    /// Returns the status of a backend.
    pub(crate) fn status(&self, backend: &Backend) -> serde_json::Value {
        let service = self
            .testbed
            .agent
            .json(&format!("service show shop/{}", backend.name));
        service["status"]["backends"][0].clone()
    }

    /// Returns the reason why a backend is not reachable, or nothing.
    pub(crate) fn problem(&self, backend: &Backend) -> String {
        let status = self.status(backend);
        status["problem"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the gateway can reach a backend.
    #[track_caller]
    pub(crate) fn wait_until_reachable(&self, backend: &Backend) {
        wait::until_true("the backend to be reachable", || {
            self.status(backend)["reachable"] == true
        });
    }

    /// Starts a client for each backend and each kind of client.
    #[track_caller]
    pub(crate) fn start_meters(&self) -> Vec<(&'static str, Client, OutageMeter)> {
        let mut meters = Vec::new();
        for backend in BACKENDS {
            for client in [Client::OneFlow, Client::NewFlows] {
                let endpoint = address(backend.endpoint);
                let meter = OutageMeter::start(&self.testbed.a, endpoint, client);
                meters.push((backend.name, client, meter));
            }
        }
        meters
    }

    /// Sets the MAC address of the provider's host.
    #[track_caller]
    pub(crate) fn set_provider_mac(&self, mac: &str) {
        self.testbed
            .provider
            .ip(&format!("link set dev eth0 address {mac}"));
    }
}

/// Stops clients, and prints and checks their outages.
#[track_caller]
pub(crate) fn expect_short_outages(event: &str, meters: Vec<(&str, Client, OutageMeter)>) {
    expect_outages_below(event, MAX_OUTAGE, meters);
}

/// Waits until clients get answers, stops them, and prints and checks their outages.
#[track_caller]
pub(crate) fn expect_outages_below(
    event: &str,
    limit: Duration,
    meters: Vec<(&str, Client, OutageMeter)>,
) {
    for (_, _, meter) in &meters {
        meter.expect_answers_within(limit + wait::DEFAULT_TIMEOUT);
    }
    for (name, client, meter) in meters {
        let outage = meter.stop();
        println!(
            "{event}: {name}, {client:?}: outage of {:.2} s",
            outage.as_secs_f64()
        );
        let limit = limit * wait::timeout_factor();
        assert!(outage < limit, "{event}: {name}, {client:?}: {outage:?}");
    }
}

/// A capture of neighbours' messages at a host's end of its link, as text.
#[derive(Debug)]
pub(crate) struct TextCapture {
    file: tempfile::NamedTempFile,
    _tcpdump: BackgroundProcess,
}

impl TextCapture {
    /// Starts a capture, and waits until it shows packets.
    #[track_caller]
    pub(crate) fn start(host: &Namespace) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut tcpdump = host.command_line(
            "tcpdump -n -e -l -i eth0 --immediate-mode -Z root arp or (icmp6 and ip6[40] >= 135)",
        );
        tcpdump
            .stdout(file.reopen().expect("a file"))
            .stderr(std::process::Stdio::null());
        let tcpdump = BackgroundProcess::start(&mut tcpdump).expect("tcpdump");
        let capture = Self {
            file,
            _tcpdump: tcpdump,
        };
        wait::until_true("tcpdump to show a packet", || {
            let _unanswered = run(
                &mut host.command_line("arping -c 1 -w 1 -I eth0 10.1.0.250"),
                Duration::from_secs(5),
            );
            !capture.text().is_empty()
        });
        capture
    }

    /// Returns the packets that were seen so far, one a line.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.file.path()).expect("a file")
    }

    /// Returns the senders that asked for an address, in the order of their questions.
    pub(crate) fn senders(&self, asked: &str) -> Vec<String> {
        let arp = format!("who-has {asked} ");
        let discovery = format!("who has {asked},");
        let text = self.text();
        let lines = text.lines();
        let senders = lines.filter_map(|line| {
            if line.contains(&arp) {
                let (_, sender) = line.split_once("tell ")?;
                return Some(sender.split(',').next()?.to_owned());
            }
            if line.contains(&discovery) {
                let (before, _) = line.split_once(" > ff02").or_else(|| {
                    let (before, rest) = line.split_once(": ICMP6")?;
                    Some((before.rsplit_once(" > ")?.0, rest))
                })?;
                return Some(before.rsplit(' ').next()?.to_owned());
            }
            None
        });
        senders.collect()
    }
}

/// Parses an address.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
