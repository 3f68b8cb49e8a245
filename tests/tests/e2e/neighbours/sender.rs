//! Sender addresses of solicitations, as the backend sees them, with addresses of other networks as traps.

use tests::net::wait;

use crate::{
    scene::{BACKENDS, Backend, Scene, TextCapture},
    set_sysctl,
};

/// Address of a backend that does not exist, so that it is asked for each second.
const MISSING: [&str; 2] = ["10.1.0.99", "fd00:1::99"];

/// Returns a scene with a missing backend in each service.
#[track_caller]
fn scene_with_missing_backends() -> Scene {
    let scene = Scene::new();
    for (Backend { name, .. }, missing) in BACKENDS.iter().zip(MISSING) {
        scene
            .testbed
            .agent
            .cli(&format!("service backend add shop/{name} {missing}"));
    }
    scene
}

/// Waits until an address was asked for from exactly this sender, and returns all senders so far.
#[track_caller]
fn wait_for_sender(capture: &TextCapture, asked: &str, sender: &str) -> Vec<String> {
    wait::until_true(&format!("{asked} to be asked for from {sender}"), || {
        let senders = capture.senders(asked);
        senders.last().is_some_and(|last| last == sender)
    });
    capture.senders(asked)
}

#[test]
fn sender_is_an_address_of_the_network_or_a_snat_address() {
    let scene = scene_with_missing_backends();
    let host = &scene.testbed.host;
    // What a kernel that selects the address by the packet, not by the network, may use.
    for name in ["all", "default", "gw-p"] {
        let setting = format!("net/ipv4/conf/{name}/arp_announce");
        set_sysctl(host, &setting, "0");
    }
    host.enable_ipv6("gw-a", &["fd00::1"]);
    host.ip("address add 10.0.0.1/24 dev gw-a");
    host.ip("address add 192.0.2.1/32 dev lo");
    host.ip("address add 192.168.9.1/24 dev gw-p");
    let capture = TextCapture::start(&scene.testbed.provider);
    for (backend, missing) in BACKENDS.iter().zip(MISSING) {
        let senders = wait_for_sender(&capture, missing, backend.snat);
        assert!(
            senders.iter().all(|sender| sender == backend.snat),
            "{senders:?}"
        );
        println!("no address of the network: {missing} is asked for from {senders:?}");
    }
    // IPv6 has a link-local address as soon as it is enabled.
    host.enable_ipv6("gw-p", &[]);
    wait::until_true("the link-local address as the sender", || {
        let senders = capture.senders(MISSING[1]);
        senders
            .last()
            .is_some_and(|last| last.starts_with("fe80::"))
    });
    host.ip("address add 10.1.0.1/24 dev gw-p");
    host.enable_ipv6("gw-p", &["fd00:1::1"]);
    for (own, missing) in ["10.1.0.1", "fd00:1::1"].into_iter().zip(MISSING) {
        wait_for_sender(&capture, missing, own);
    }
    host.ip("address flush dev gw-p");
    for (backend, missing) in BACKENDS.iter().zip(MISSING) {
        let senders = wait_for_sender(&capture, missing, backend.snat);
        for foreign in ["10.0.0.1", "192.0.2.1", "192.168.9.1", "fd00::1"] {
            assert!(
                senders.iter().all(|sender| sender != foreign),
                "{foreign}: {senders:?}"
            );
        }
    }
}
