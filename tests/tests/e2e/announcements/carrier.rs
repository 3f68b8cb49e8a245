//! Loss of the carrier: it is shown, and the interface is not used.

use tests::net::{topology::Testbed, wait};

use crate::taken::wait_for_attachment;

#[test]
fn interface_without_carrier_is_shown_and_its_backends_are_unreachable() {
    let testbed = Testbed::with_approved_connections();
    testbed.provider.ip("link set dev eth0 down");
    wait_for_attachment(&testbed, "shop/net", "no_carrier");
    let shown = testbed.agent.cli("network show shop/net");
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("gw-p has no carrier: check its cable and the switch's port"),
        "{shown}"
    );
    wait::until_true("the backends to be unreachable for that reason", || {
        let service = testbed.agent.json("service show shop/web");
        let backends = service["status"]["backends"].as_array().cloned();
        backends.is_some_and(|backends| {
            backends.iter().all(|backend| {
                let problem = backend["problem"].as_str().unwrap_or_default();
                backend["reachable"] == false && problem.contains("carrier")
            })
        })
    });
    testbed.provider.ip("link set dev eth0 up");
    wait_for_attachment(&testbed, "shop/net", "up");
    testbed.wait_for_backends();
    let network = testbed.agent.json("network show shop/net");
    assert_eq!(
        network["status"]["attachments"][0]["problems"],
        serde_json::json!([])
    );
}
