//! Outages as clients see them: the time until new connections succeed again.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tests::net::{families::Families, topology::Testbed, wait};

use crate::{echo, echo::Session, taken::wait_for_attachment};

/// Longest outage.
const MAX_OUTAGE: Duration = Duration::from_secs(3);
/// Limit on one connection attempt.
const ATTEMPT: Duration = Duration::from_millis(300);

/// Returns a testbed with a server.
fn testbed(families: Families) -> (Testbed, IpAddr) {
    let testbed = families.testbed();
    echo::serve(&testbed.provider, families.backend());
    let endpoint = families.endpoint();
    wait_for_connection(&testbed, endpoint);
    (testbed, endpoint)
}

/// Waits until a new connection succeeds.
#[track_caller]
fn wait_for_connection(testbed: &Testbed, endpoint: IpAddr) {
    wait::until_true("a new connection", || {
        Session::connect(&testbed.a, endpoint, ATTEMPT).is_ok()
    });
}

#[track_caller]
fn expect_short(what: &str, families: Families, outage: Duration) {
    println!(
        "outage of new connections after {what}, {families:?}: {:.2} s",
        outage.as_secs_f64()
    );
    assert!(outage < MAX_OUTAGE * wait::timeout_factor(), "{outage:?}");
}

/// Connects again and again until the change is in effect and some time has passed, and returns the longest time without
/// a success.
#[track_caller]
fn longest_outage(
    testbed: &Testbed,
    endpoint: IpAddr,
    is_in_effect: impl Fn() -> bool,
) -> Duration {
    let (mut last_success, mut longest) = (Instant::now(), Duration::ZERO);
    let mut in_effect = None;
    while in_effect.is_none_or(|since: Instant| since.elapsed() < MAX_OUTAGE) {
        if in_effect.is_none() && is_in_effect() {
            in_effect = Some(Instant::now());
        }
        let succeeded = Session::connect(&testbed.a, endpoint, ATTEMPT).is_ok();
        longest = longest.max(last_success.elapsed());
        if succeeded {
            last_success = Instant::now();
        }
    }
    longest
}

#[test]
fn new_mac_address_interrupts_new_connections_briefly() {
    std::thread::scope(|scope| {
        for families in [Families::V4ToV4, Families::V6ToV6] {
            scope.spawn(move || changes_mac_addresses(families));
        }
    });
}

fn changes_mac_addresses(families: Families) {
    let (testbed, endpoint) = testbed(families);
    for (number, (interface, network, what)) in [
        (
            "gw-a",
            "a/net",
            "a new MAC address in the consumer's network",
        ),
        (
            "gw-p",
            "shop/net",
            "a new MAC address in the provider's network",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mac = format!("02:00:00:00:78:0{number}");
        testbed
            .host
            .ip(&format!("link set dev {interface} address {mac}"));
        let outage = longest_outage(&testbed, endpoint, || {
            let network = testbed.agent.json(&format!("network show {network}"));
            network["status"]["attachments"][0]["mac"] == mac.as_str()
        });
        expect_short(what, families, outage);
    }
}

#[test]
fn lost_carrier_interrupts_new_connections_briefly() {
    let families = Families::V4ToV4;
    let (testbed, endpoint) = testbed(families);
    for (host, network, what) in [
        (
            &testbed.a,
            "a/net",
            "a carrier loss in the consumer's network",
        ),
        (
            &testbed.provider,
            "shop/net",
            "a carrier loss in the provider's network",
        ),
    ] {
        host.ip("link set dev eth0 down");
        wait_for_attachment(&testbed, network, "no_carrier");
        host.ip("link set dev eth0 up");
        let outage = longest_outage(&testbed, endpoint, || {
            let network = testbed.agent.json(&format!("network show {network}"));
            network["status"]["attachments"][0]["state"] == "up"
        });
        expect_short(what, families, outage);
    }
}
