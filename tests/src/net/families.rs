//! Testbeds with IPv4 or IPv6 on the consumer's side and on the provider's.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
};

use crate::net::topology::Testbed;

/// Address families of the consumer's side and of the provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 at both ends.
    V4ToV4,
    /// IPv6 at both ends.
    V6ToV6,
    /// IPv4 consumer and IPv6 provider (NAT46).
    V4ToV6,
    /// IPv6 consumer and IPv4 provider (NAT64).
    V6ToV4,
}

impl Families {
    /// Every pair of address families.
    pub const ALL: [Self; 4] = [Self::V4ToV4, Self::V6ToV6, Self::V4ToV6, Self::V6ToV4];

    /// The endpoint's address.
    ///
    /// # Panics
    /// Never panics: the literals are addresses.
    #[must_use]
    pub fn endpoint(self) -> IpAddr {
        match self {
            Self::V4ToV4 | Self::V4ToV6 => [10, 0, 0, 110].into(),
            Self::V6ToV6 | Self::V6ToV4 => "fd00::110".parse().expect("an address"),
        }
    }

    /// The backend's address.
    ///
    /// # Panics
    /// Never panics: the literals are addresses.
    #[must_use]
    pub fn backend(self) -> IpAddr {
        match self {
            Self::V4ToV4 | Self::V6ToV4 => [10, 1, 0, 10].into(),
            Self::V6ToV6 | Self::V4ToV6 => "fd00:1::10".parse().expect("an address"),
        }
    }

    const fn nat(self) -> &'static str {
        match self {
            Self::V4ToV4 | Self::V6ToV4 => "10.1.0.96/28",
            Self::V6ToV6 | Self::V4ToV6 => "fd00:1::60/124",
        }
    }

    /// Returns a URL at the endpoint.
    #[must_use]
    pub fn url(self, path: &str) -> String {
        format!("http://{}/{path}", SocketAddr::new(self.endpoint(), 80))
    }

    /// Returns a testbed with an endpoint of the consumer's family, and a service with one backend of the provider's.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[must_use]
    pub fn testbed(self) -> Testbed {
        let testbed = Testbed::unconfigured();
        testbed.host.enable_ipv6("gw-p", &[]);
        testbed.a.enable_ipv6("eth0", &["fd00::5"]);
        testbed.provider.enable_ipv6("eth0", &["fd00:1::10"]);
        for (tenant, interface) in [("a", "gw-a"), ("shop", "gw-p")] {
            testbed.agent.cli(&format!("tenant create {tenant}"));
            testbed.agent.cli(&format!(
                "network create {tenant}/net --interface {interface}"
            ));
        }
        testbed.agent.cli(&format!(
            "service create shop/web --network net --port * --port */udp --backend {} --nat {} \
             --visibility * --auto-approval *",
            self.backend(),
            self.nat()
        ));
        testbed.agent.cli(&format!(
            "endpoint create a/web --network net --address {} --service shop/web",
            self.endpoint()
        ));
        testbed.wait_for_backends();
        testbed
    }
}

/// Runs a test for every pair of address families, each on a testbed of its own.
///
/// # Panics
/// Panics if the test does for one of them.
pub fn for_each_family_pair(test: impl Fn(Families, &Testbed) + Send + Sync) {
    let mut failed = Vec::new();
    thread::scope(|scope| {
        let test = &test;
        let runs = Families::ALL.map(|families| {
            (
                families,
                scope.spawn(move || test(families, &families.testbed())),
            )
        });
        for (families, run) in runs {
            if run.join().is_err() {
                failed.push(families);
            }
        }
    });
    assert!(failed.is_empty(), "failed for {failed:?}");
}
