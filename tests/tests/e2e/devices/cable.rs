//! Wrong cables: an interface that receives nothing, and one that receives frames of another network.

use std::time::Duration;

use serde_json::Value;
use tests::net::{namespace::Namespace, process::run, topology::Testbed, wait};

/// Time within which received frames are to be shown.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the status of the only attachment of a network.
fn attachment(testbed: &Testbed, network: &str) -> Value {
    let network = testbed.agent.json(&format!("network show {network}"));
    network["status"]["attachments"][0].clone()
}

/// Returns the output of the command line about of a network, with single blanks.
fn shown(testbed: &Testbed, network: &str) -> String {
    let text = testbed.agent.cli(&format!("network show {network}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Sends ARP requests for an address that nobody has.
fn ask_for(host: &Namespace, address: &str) {
    let mut arping = host.command_line(&format!("arping -c 2 -w 1 -I eth0 {address}"));
    run(&mut arping, wait::DEFAULT_TIMEOUT * wait::timeout_factor()).expect("arping");
}

#[test]
fn interface_that_receives_nothing_differs_from_one_that_does() {
    let testbed = Testbed::unconfigured();
    let far = Namespace::new("far");
    testbed.host.connect("gw-x", &far);
    far.ip("address add 10.9.0.5/24 dev eth0");
    testbed.agent.cli("tenant create x");
    testbed.agent.cli("network create x/net --interface gw-x");
    wait::until("the interface to be watched", NOTICE_TIMEOUT, || {
        attachment(&testbed, "x/net")["watched_since"]
            .is_string()
            .then_some(())
    });
    let unused = attachment(&testbed, "x/net");
    assert_eq!(unused["received_packets"], 0, "{unused}");
    assert!(unused["last_received_at"].is_null(), "{unused}");
    assert!(shown(&testbed, "x/net").contains(" 0 never"));

    ask_for(&far, "10.9.0.99");
    let used = wait::until("received packets", NOTICE_TIMEOUT, || {
        let status = attachment(&testbed, "x/net");
        status["last_received_at"].is_string().then_some(status)
    });
    assert!(used["received_packets"].as_u64() >= Some(1), "{used}");
    assert!(!shown(&testbed, "x/net").contains("never"));
}

#[test]
fn frames_of_another_network_are_counted_at_the_interface_that_drops_them() {
    let testbed = Testbed::with_approved_connections();
    // The host of consumer A is in another network now.
    testbed.a.ip("address flush dev eth0");
    testbed.a.ip("address add 10.9.0.5/24 dev eth0");
    ask_for(&testbed.a, "10.9.0.1");
    wait::until("dropped packets", NOTICE_TIMEOUT, || {
        let drops = attachment(&testbed, "a/net")["drops"]["unknown_neighbour_target"].as_u64();
        (drops >= Some(2)).then_some(())
    });
    assert!(shown(&testbed, "a/net").contains("gw-a unknown_neighbour_target"));
    let other = attachment(&testbed, "b/net");
    assert!(
        other["drops"]["unknown_neighbour_target"].is_null(),
        "{other}"
    );

    // The counts are those of one interface: another one of the same name begins at zero.
    testbed.host.ip("link delete dev gw-a");
    testbed.host.connect("gw-a", &testbed.a);
    wait::until("the new interface to be watched", NOTICE_TIMEOUT, || {
        let status = attachment(&testbed, "a/net");
        let is_watched = status["received_packets"].is_number() && status["xdp_mode"].is_string();
        (is_watched && status["drops"].is_null()).then_some(())
    });
}
