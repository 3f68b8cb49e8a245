//! Switches that track devices: they probe for addresses without using them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gateway::inject::{PacketSocket, frames};
use tests::{
    net::{families::Families, topology::Testbed, wait},
    packet::{Arp, Content, Mac, Packet},
};

const SWITCH_MAC: Mac = [2, 0, 0, 0, 0, 0x5f];

/// Returns a testbed whose agent probes addresses, without an endpoint.
fn testbed(families: Families) -> Testbed {
    let mut testbed = families.testbed();
    testbed.agent.cli("endpoint delete a/web");
    testbed.agent.stop();
    testbed
        .agent
        .settings
        .insert("PLGW_ADDRESS_PROBES".to_owned(), "3".to_owned());
    testbed
        .agent
        .settings
        .insert("PLGW_ADDRESS_PROBE_INTERVAL".to_owned(), "100".to_owned());
    testbed.agent.restart();
    testbed.wait_for_backends();
    testbed
}

/// Returns a probe of the switch: to everybody, or to one MAC address.
fn probe(address: IpAddr, to: Option<Mac>) -> Vec<u8> {
    match address {
        IpAddr::V4(target) => {
            let packet = Packet {
                to: to.unwrap_or([0xff; 6]),
                from: SWITCH_MAC,
                content: Content::Arp(Arp {
                    operation: 1,
                    sender: (SWITCH_MAC, Ipv4Addr::UNSPECIFIED),
                    target: ([0; 6], target),
                }),
            };
            packet.bytes(false)
        }
        IpAddr::V6(_) => {
            let from = gateway_common::packet::Mac::new(SWITCH_MAC);
            let mut frame = frames::probe(from, address);
            if let Some(to) = to {
                frame[..6].copy_from_slice(&to);
            }
            frame
        }
    }
}

/// Sends a frame from the consumer's host every few milliseconds while a function runs.
fn while_probing(testbed: &Testbed, frame: Vec<u8>, function: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sender = testbed.a.spawn(move || {
        let index = nix::net::if_::if_nametoindex("eth0").expect("an interface");
        let socket = PacketSocket::open().expect("a packet socket");
        while !stopped.load(Ordering::Relaxed) {
            let _queue_full = socket.send(index, &frame);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    function();
    stop.store(true, Ordering::Relaxed);
    sender.join().expect("a sender");
}

/// Returns the MAC address of the gateway's interface in the consumer's network.
fn gateway_mac(testbed: &Testbed) -> Mac {
    let text = crate::watch::mac_of(&testbed.host, "gw-a");
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    bytes.try_into().expect("six bytes")
}

#[test]
fn address_is_claimed_although_a_switch_probes_for_it() {
    for families in [Families::V4ToV4, Families::V6ToV6] {
        let testbed = testbed(families);
        let address = families.endpoint();
        for to in [Some(gateway_mac(&testbed)), None] {
            while_probing(&testbed, probe(address, to), || {
                testbed.agent.cli(&format!(
                    "endpoint create a/web --network net --address {address} --service shop/web"
                ));
                wait::until_true("the address to be in use", || {
                    let endpoint = testbed.agent.json("endpoint show a/web");
                    endpoint["status"]["addresses"][0]["state"] == "in_use"
                });
            });
            testbed.agent.cli("endpoint delete a/web");
        }
    }
}
