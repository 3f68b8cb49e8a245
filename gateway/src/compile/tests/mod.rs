//! Tests of compilation and of plans, over states that the operations of the model build.

mod incremental;
mod isolation;
mod plans;
mod snat;

use std::net::{IpAddr, Ipv4Addr};

use gateway_common::packet::Mac;

use crate::compile::observed::{Interface, Observed, ObservedNextHop};

pub(super) fn observed(interfaces: &[(&str, u32)]) -> Observed {
    let mut observed = Observed::default();
    for (name, ifindex) in interfaces {
        let interface = Interface {
            ifindex: *ifindex,
            mac: Mac::new([2, 0, 0, 0, 0, 1]),
            mtu: 1_500,
            has_carrier: true,
        };
        observed.interfaces.insert((*name).to_owned(), interface);
    }
    let hop = ObservedNextHop {
        interface: "veth-p".to_owned(),
        mac: Mac::new([2, 0, 0, 0, 0, 9]),
    };
    for last in 9..20 {
        let backend = (
            "provider/net".parse().unwrap(),
            IpAddr::V4(Ipv4Addr::new(10, 1, 0, last)),
        );
        observed.next_hops.insert(backend, hop.clone());
    }
    observed
}

pub(super) fn both_interfaces() -> Observed {
    observed(&[("veth-c", 3), ("veth-p", 4)])
}
