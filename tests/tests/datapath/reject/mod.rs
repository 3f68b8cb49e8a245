//! Rejects: disallowed packets get a TCP reset, an ICMP error or no answer.

mod addresses;
mod backends;
mod limits;
mod tcp;

use std::net::Ipv4Addr;

use gateway_common::{DropReason, Verdict, drop_reason::Attribution};
use tests::{
    datapath::differential::{CLIENT, DifferentialHarness, ENDPOINT, HTTPS, Side},
    packet::Packet,
};

use crate::run_cases;

const CLIENT_SOCKET: (Ipv4Addr, u16) = (CLIENT, 40_000);
const WEB: (Ipv4Addr, u16) = (ENDPOINT, HTTPS);

/// Expects that the native data path drops the packet for this reason.
#[track_caller]
fn expect_native_reject(harness: &mut DifferentialHarness, packet: &Packet, reason: DropReason) {
    let verdict = harness.send_native(Side::A, packet);
    assert!(
        matches!(verdict, Verdict::Drop(Attribution { reason: found, .. }) if found == reason),
        "{verdict:?}, not dropped for {reason:?}"
    );
}

#[test]
fn disallowed_packets_are_rejected_with_reset_or_icmp_error() {
    run_cases(&[tcp::CASES, addresses::CASES, backends::CASES, limits::CASES].concat());
}
