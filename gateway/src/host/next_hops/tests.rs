use std::time::Duration;

use super::*;
use crate::{neighbour::MessageKind, netlink::KernelNeighbour};

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

fn key(last: &str) -> BackendKey {
    let address = format!("10.1.0.{last}").parse().unwrap();
    ("provider/net".parse().unwrap(), address)
}

fn via(key: &BackendKey, kernel: Option<KernelNeighbour>) -> BTreeMap<BackendKey, BackendRoute> {
    let route = BackendRoute::Via {
        interface: "gw-p".to_owned(),
        next_hop: (4, key.1),
        kernel,
    };
    BTreeMap::from([(key.clone(), route)])
}

fn resolved(mac: Mac, is_confirmed: bool) -> NextHopResult {
    NextHopResult::Resolved {
        hop: ObservedNextHop {
            interface: "gw-p".to_owned(),
            mac,
        },
        is_confirmed,
    }
}

#[test]
fn backends_are_indexed_by_next_hop() {
    let mut resolver = NextHopResolver::default();
    let router = (4, "10.1.0.1".parse().unwrap());
    let now = Instant::now();
    resolver.set(&key("10"), Ok(router), now);
    resolver.set(&key("11"), Ok(router), now);
    resolver.set(&key("12"), Err("no interface".to_owned()), now);
    let behind = |resolver: &NextHopResolver| {
        resolver
            .backends_behind(&router)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(behind(&resolver), [key("10"), key("11")]);
    resolver.set(&key("10"), Ok((4, key("10").1)), now);
    assert_eq!(behind(&resolver), [key("11")]);
    resolver.remove(&key("11"));
    resolver.remove(&key("12"));
    assert_eq!(behind(&resolver), []);
    assert_eq!(resolver.backends_by_next_hop.len(), 1);
    assert_eq!(resolver.backends().collect::<Vec<_>>(), [&key("10")]);
    // The router is no longer wanted.
    assert!(!resolver.wanted().contains(&router));
    assert!(resolver.wanted().contains(&(4, key("10").1)));
    let asked = resolver.step(now, |_| true, |_, _| None);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].neighbour, (4, key("10").1));
}

#[test]
fn reason_names_the_question_and_is_stable_but_for_the_count() {
    let mut resolver = NextHopResolver::default();
    let now = resolver.started.0;
    resolver.started.1 = "2026-01-02T12:00:03.7Z".parse().unwrap();
    resolver.update(&via(&key("10"), None), now);
    let text = "10.1.0.10 is being resolved on gw-p";
    assert_eq!(
        resolver.result(&key("10")),
        NextHopResult::Pending(text.to_owned())
    );
    let snat = |interface: &str, _: IpAddr| {
        assert_eq!(interface, "gw-p");
        "10.1.0.64".parse().ok()
    };
    for second in 0..37 {
        let at = now + Duration::from_millis(1_001 * second);
        assert_eq!(resolver.step(at, |_| true, snat).len(), 1);
    }
    let text = "10.1.0.10 does not answer on gw-p: asked by ARP from 10.1.0.64 every second since \
                2026-01-02T12:00:03Z (37 requests)";
    assert_eq!(
        resolver.result(&key("10")),
        NextHopResult::Unreachable(text.to_owned())
    );
    let message = NeighbourMessage {
        address: key("10").1,
        mac: Some(MAC),
        kind: MessageKind::ArpReply,
    };
    resolver.take_changed();
    resolver.on_message(4, &message, now + Duration::from_secs(37));
    assert_eq!(resolver.take_changed(), BTreeSet::from([key("10")]));
    assert_eq!(resolver.result(&key("10")), resolved(MAC, true));
}

#[test]
fn missing_sender_is_named_with_a_remedy() {
    let mut resolver = NextHopResolver::default();
    let key = ("provider/net".parse().unwrap(), "fd00::10".parse().unwrap());
    let now = Instant::now();
    resolver.update(&via(&key, None), now);
    assert_eq!(resolver.step(now, |_| true, |_, _| None), []);
    assert_eq!(resolver.take_changed(), BTreeSet::from([key.clone()]));
    let NextHopResult::Unreachable(reason) = resolver.result(&key) else {
        panic!("reachable");
    };
    assert!(
        reason.contains("net.ipv6.conf.gw-p.disable_ipv6=0"),
        "{reason}"
    );
}

#[test]
fn interface_that_cannot_be_used_is_the_reason_and_nothing_counts_as_asked() {
    let mut resolver = NextHopResolver::default();
    let now = Instant::now();
    resolver.update(&via(&key("10"), None), now);
    for second in 0..5 {
        let at = now + Duration::from_secs(second);
        assert_eq!(resolver.step(at, |_| false, |_, _| None), []);
    }
    let text =
        "10.1.0.10 can't be asked for, because gw-p can't be used: see its problems in plgw status";
    let unreachable = NextHopResult::Unreachable(text.to_owned());
    assert_eq!(resolver.result(&key("10")), unreachable);
    resolver.take_changed();
    let at = now + Duration::from_secs(5);
    assert_eq!(resolver.step(at, |_| true, |_, _| None).len(), 1);
    assert_eq!(resolver.take_changed(), BTreeSet::from([key("10")]));
    assert!(matches!(
        resolver.result(&key("10")),
        NextHopResult::Pending(_)
    ));
}

#[test]
fn former_and_kernel_entries_are_used_until_they_prove_wrong() {
    let kernel = KernelNeighbour {
        mac: Some(MAC),
        ..KernelNeighbour::default()
    };
    let former = Mac::new([2, 0, 0, 0, 0, 2]);
    let now = Instant::now();
    let mut resolver = NextHopResolver::new(HashMap::from([((4, key("10")), former)]));
    resolver.update(&via(&key("10"), Some(kernel)), now);
    assert_eq!(resolver.result(&key("10")), resolved(former, false));
    resolver.update(&via(&key("11"), Some(kernel)), now);
    assert_eq!(resolver.result(&key("11")), resolved(MAC, false));
    // The kernel's table is flushed: nothing changes.
    resolver.update(&via(&key("11"), None), now);
    assert_eq!(resolver.result(&key("11")), resolved(MAC, false));
    for second in 0..4 {
        resolver.step(now + Duration::from_secs(second), |_| true, |_, _| None);
    }
    assert!(matches!(
        resolver.result(&key("11")),
        NextHopResult::Unreachable(_)
    ));
    // A configured entry needs no answer.
    let configured = KernelNeighbour {
        is_static: true,
        ..kernel
    };
    resolver.update(&via(&key("11"), Some(configured)), now);
    assert_eq!(resolver.result(&key("11")), resolved(MAC, true));
}
