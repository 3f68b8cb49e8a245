//! The helper calls of each path through the data path. Unlike times, they do not depend on the machine.
//!
//! The counts are in `helper_call_budget.snap`. `PLGW_WRITE_COSTS=1` writes the file, so that changes are deliberate.

use std::{collections::BTreeMap, env, fs, path::Path};

use gateway_common::{flow::FlowTableUsage, sim::SimMaps};
use tests::{
    datapath::differential::{
        BACKEND_MAC, CLIENT, CLIENT_MAC, CLIENT_V6, DNS, DifferentialHarness, ENDPOINT,
        ENDPOINT_V6, HTTPS, PENDING, Side, arp_request, icmp, tcp, tcp_v6, udp, with_harness,
    },
    packet::Packet,
};

/// The file is compiled in, since the tests run on other kernels in machines without the source tree.
const BUDGET: &str = include_str!("helper_call_budget.snap");

/// Counted calls, as the file's columns.
const COLUMNS: [&str; 14] = [
    "subprogram",
    "flow call",
    "bucket",
    "lookup",
    "element",
    "write",
    "counter",
    "clock",
    "frame length",
    "resize",
    "partial checksum",
    "SYN options",
    "bounded loop",
    "identification",
];

/// The table of counts.
struct CallTable(String);

impl CallTable {
    fn new() -> Self {
        let head = COLUMNS.map(|column| format!(" {column:>16}")).concat();
        Self(format!("{:<32}{head}\n", "path"))
    }

    /// Sends a packet, and adds a line with its counts.
    #[track_caller]
    fn measure(
        &mut self,
        path_name: &str,
        harness: &mut DifferentialHarness,
        side: Side,
        packet: &Packet,
    ) {
        disable_sweep(harness.native_maps());
        let _before = harness.native_maps().helper_calls.take_counts();
        harness.send(side, packet);
        let calls = harness.native_maps().helper_calls.take_counts();
        let known: BTreeMap<&str, u32> = COLUMNS.iter().map(|column| (*column, 0)).collect();
        let unknown: Vec<_> = calls
            .keys()
            .filter(|call| !known.contains_key(*call))
            .collect();
        assert!(
            unknown.is_empty(),
            "{path_name} calls {unknown:?}, which has no column"
        );
        let cells = COLUMNS.map(|column| format!(" {:>16}", calls.get(column).unwrap_or(&0)));
        self.0
            .push_str(&format!("{path_name:<32}{}\n", cells.concat()));
    }
}

/// Keeps new flows from sweeping the flow tables. What they would sweep depends on the time.
fn disable_sweep(maps: &SimMaps) {
    for family in [0, 1] {
        let usage = FlowTableUsage {
            swept: u64::MAX,
            ..maps.flow_table_usage.get(family)
        };
        maps.flow_table_usage.set(family, usage);
    }
}

#[test]
fn helper_calls_of_every_path_match_the_budget() {
    let (costs, verified) = with_harness(|harness| {
        let mut costs = CallTable::new();
        let client = (CLIENT, 40_000);
        let syn = tcp(client, (ENDPOINT, HTTPS)).syn(1_000);
        costs.measure(
            "new flow, TCP",
            harness,
            Side::B,
            &syn.clone().sent_to(Side::B),
        );
        costs.measure("new flow, TCP, NAT46 enabled", harness, Side::A, &syn);
        let connection = harness.connect(40_001);
        let segment = connection.client_ack().with_payload(b"x");
        costs.measure("established, TCP", harness, Side::A, &segment);
        let answer = connection.backend_ack().with_payload(b"x");
        costs.measure("reply direction, TCP", harness, Side::Provider, &answer);
        let question = udp((CLIENT, 5_000), (ENDPOINT, DNS), b"x");
        costs.measure("new flow, UDP", harness, Side::A, &question);
        let (nat, server) = harness
            .send(Side::A, &question)
            .expect_forwarded(Side::Provider)
            .sockets();
        costs.measure("half-open, UDP", harness, Side::A, &question);
        let answer = udp(server, nat, b"x")
            .with_source_mac(BACKEND_MAC)
            .sent_to(Side::Provider);
        for _ in 0..2 {
            harness.send(Side::Provider, &answer);
            harness.send(Side::A, &question);
        }
        costs.measure("established, UDP", harness, Side::A, &question);
        let (client, endpoint) = ((CLIENT_V6, 40_000), (ENDPOINT_V6, HTTPS));
        let syn = tcp_v6(client, endpoint).syn(1_000);
        let (nat, server) = harness
            .send(Side::A, &syn)
            .expect_forwarded(Side::Provider)
            .sockets_v6();
        let answer = tcp_v6(server, nat)
            .with_source_mac(BACKEND_MAC)
            .syn_ack(5_000, 1_001);
        harness
            .send(Side::Provider, &answer)
            .expect_forwarded(Side::A);
        let ack = tcp_v6(client, endpoint).ack(1_001, 5_001);
        harness.send(Side::A, &ack).expect_forwarded(Side::Provider);
        costs.measure(
            "established, TCP over IPv6",
            harness,
            Side::A,
            &ack.with_payload(b"x"),
        );
        let request = arp_request(ENDPOINT, (CLIENT_MAC, CLIENT));
        costs.measure("ARP reply", harness, Side::A, &request);
        let echo = icmp(CLIENT, ENDPOINT, 8, 0, &[0; 32]);
        costs.measure("echo reply", harness, Side::A, &echo);
        let stranger = tcp(
            (CLIENT, 4_000),
            ("10.0.0.222".parse().expect("an address"), HTTPS),
        );
        let stranger = stranger.ack(1, 1).sent_to(Side::B);
        costs.measure("no endpoint, isolated", harness, Side::B, &stranger);
        costs.measure("not attached", harness, Side::Host, &segment);
        let unapproved = tcp((CLIENT, 4_000), (PENDING, HTTPS)).syn(1);
        let unapproved = unapproved.sent_to(Side::B);
        costs.measure("rejected with a reset", harness, Side::B, &unapproved);
        (costs.0, harness.program_info().verified_instructions)
    });
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/datapath/helper_call_budget.snap");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = kernel.split('.');
    let series = [numbers.next(), numbers.next()]
        .map(Option::unwrap_or_default)
        .join(".");
    let verified = verified.expect("a count, since Linux 5.16");
    if env::var_os("PLGW_WRITE_COSTS").is_some() {
        let text = format!("{costs}\ninstructions verified by Linux {series}: {verified}\n");
        fs::write(&file, text).expect("the file written");
        return;
    }
    let (table, rest) = BUDGET.split_once("\n\n").expect("two parts");
    assert_eq!(
        table.trim_end(),
        costs.trim_end(),
        "helper calls differ from the budget (left): if that is intended, set PLGW_WRITE_COSTS=1 to write it"
    );
    // Every kernel version counts differently.
    let line = rest
        .trim()
        .strip_prefix(&format!("instructions verified by Linux {series}: "));
    if let Some(before) = line.and_then(|number| number.parse::<u32>().ok()) {
        let allowed = before / 100 * 98..=before / 100 * 102;
        assert!(
            allowed.contains(&verified),
            "{verified} instructions verified instead of {before}: if that is intended, set PLGW_WRITE_COSTS=1 to \
             write the budget"
        );
    }
}
