//! Announcements when an address is taken, when an interface returns, when its MAC address changes, and when another
//! attachment takes over.

use std::net::IpAddr;

use tests::net::{families::Families, topology::Testbed, wait};

use crate::watch::{Watch, mac_of};

/// Addresses of a test: two SNAT addresses, and a second endpoint.
struct Addresses {
    nat: [IpAddr; 2],
    endpoint: IpAddr,
}

impl Addresses {
    fn of(families: Families) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        if families == Families::V4ToV4 {
            Self {
                nat: [address("10.1.0.40"), address("10.1.0.41")],
                endpoint: address("10.0.0.120"),
            }
        } else {
            Self {
                nat: [address("fd00:1::40"), address("fd00:1::41")],
                endpoint: address("fd00::120"),
            }
        }
    }
}

/// Waits until an attachment of the network is in the state.
#[track_caller]
pub(crate) fn wait_for_attachment(testbed: &Testbed, network: &str, state: &str) {
    wait::until_true(&format!("the interface of {network} to be {state}"), || {
        let network = testbed.agent.json(&format!("network show {network}"));
        network["status"]["attachments"][0]["state"] == state
    });
}

#[test]
fn addresses_are_announced_whenever_neighbours_may_not_know_them() {
    let families = [Families::V4ToV4, Families::V6ToV6];
    std::thread::scope(|scope| {
        for families in families {
            scope.spawn(move || announces_at_every_moment(families));
        }
    });
}

fn announces_at_every_moment(families: Families) {
    let testbed = families.testbed();
    let Addresses { nat, endpoint } = Addresses::of(families);
    let (at_provider, at_consumer) = (Watch::start(&testbed.provider), Watch::start(&testbed.a));
    let sides = [
        (
            &at_provider,
            &testbed.provider,
            "gw-p",
            &nat[..],
            "shop/net",
        ),
        (&at_consumer, &testbed.a, "gw-a", &[endpoint][..], "a/net"),
    ];
    // Taken.
    let [first, second] = nat;
    testbed
        .agent
        .cli(&format!("service update shop/web --nat {first}-{second}"));
    testbed.agent.cli(&format!(
        "endpoint create a/second --network net --address {endpoint} --service shop/web"
    ));
    for (watch, _, interface, addresses, _) in sides {
        let mac = mac_of(&testbed.host, interface);
        watch.wait_for(addresses, &mac, &[0, 0], "they were taken");
    }
    // The carrier returns.
    for (watch, host, interface, addresses, network) in sides {
        let mac = mac_of(&testbed.host, interface);
        host.ip("link set dev eth0 down");
        wait_for_attachment(&testbed, network, "no_carrier");
        let before = watch.counts(addresses, &mac);
        host.ip("link set dev eth0 up");
        watch.wait_for(addresses, &mac, &before, "the carrier returned");
        // A loss that is over before the agent looks.
        let before = watch.counts(addresses, &mac);
        host.ip("link set dev eth0 down");
        host.ip("link set dev eth0 up");
        watch.wait_for(addresses, &mac, &before, "a short loss of the carrier");
    }
    // The MAC address changes.
    for (number, (watch, _, interface, addresses, _)) in sides.into_iter().enumerate() {
        let mac = format!("02:00:00:00:77:0{number}");
        testbed
            .host
            .ip(&format!("link set dev {interface} address {mac}"));
        watch.wait_for(addresses, &mac, &[0, 0], "its MAC address changed");
    }
    // The interface returns.
    for (number, (watch, _, interface, addresses, network)) in sides.into_iter().enumerate() {
        let mac = format!("02:00:00:00:77:0{number}");
        testbed.host.ip(&format!("link set dev {interface} down"));
        wait_for_attachment(&testbed, network, "down");
        let before = watch.counts(addresses, &mac);
        testbed.host.ip(&format!("link set dev {interface} up"));
        watch.wait_for(addresses, &mac, &before, "the interface was set up");
    }
}

#[test]
fn remaining_attachment_announces_the_addresses() {
    let testbed = Families::V4ToV4.testbed();
    let endpoint = Families::V4ToV4.endpoint();
    // A bridge connects the consumer's host with both interfaces of the gateway.
    testbed.a.ip("link add name br0 type bridge");
    testbed.a.ip("link set dev br0 up");
    testbed.host.connect_as("gw-a2", &testbed.a, "eth1");
    for port in ["eth0", "eth1"] {
        testbed.a.ip(&format!("link set dev {port} master br0"));
    }
    testbed
        .agent
        .cli("network update a/net --interface gw-a --interface gw-a2");
    wait::until_true("both interfaces to be up", || {
        let network = testbed.agent.json("network show a/net");
        let attachments = network["status"]["attachments"].as_array().cloned();
        attachments.is_some_and(|list| list.len() == 2 && list.iter().all(|a| a["state"] == "up"))
    });
    let watch = Watch::start(&testbed.a);
    let mac = mac_of(&testbed.host, "gw-a2");
    // Announcements of the change of the network may still arrive.
    let mut before = watch.counts(&[endpoint], &mac);
    wait::until_true("no more announcements", || {
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        let now = watch.counts(&[endpoint], &mac);
        std::mem::replace(&mut before, now.clone()) == now
    });
    testbed.a.ip("link set dev eth0 down");
    watch.wait_for(&[endpoint], &mac, &before, "the other lost its carrier");
}
