//! The flow table in the kernel, changed by two processors at the same time.
//!
//! Both send packets of the same clients and backends in random order, over a table of a few buckets. Meanwhile another
//! thread reads the table from its mapping, and collects flows as the agent does.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::BorrowedFd,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use gateway::agent::flow_gc::FlowGc;
use gateway::bpf::flow_tables::{FlowTable, FlowTableSet, HasFlowTable as _};
use gateway_common::{
    V4,
    flow::{Control, Direction, FlowKey, FlowRef, PlaceState, table::at_index},
};
use tests::{
    bpf::syscalls::run_once,
    datapath::differential::{
        BACKEND_MAC, CLIENT, DNS, ENDPOINT, ForwardedPacket, HTTPS, Side, tcp, udp,
        with_sized_harness,
    },
    packet::{
        Mac, Packet, Socket,
        flag::{ACK, FIN, PSH, RST},
    },
    random::Random,
};

/// Number of buckets of the table: 32 places.
const BUCKETS: u32 = 8;

/// Packets that each processor sends.
const PACKETS: u32 = 100_000;

/// Number of client ports, of each consumer and protocol. Their UDP flows never close, and leave half of the table to
/// TCP.
const PORTS: usize = 3;

/// MAC addresses that clients' packets come from. They differ in every byte, so that a mixture is none of them.
const CLIENT_MACS: [Mac; 4] = [[0x12; 6], [0x24; 6], [0x46; 6], [0x88; 6]];

/// A client of a consumer's network: side, port, and whether it uses TCP.
type Client = (Side, u16, bool);

/// One processor's packets.
struct Hammer<'a> {
    program: BorrowedFd<'a>,
    ifindexes: [(Side, u32); 3],
    random: Random,
    /// Sockets in the provider's network that a client's packets were last seen with.
    mappings: BTreeMap<Client, (Socket, Socket)>,
    forwarded: usize,
    dropped: usize,
}

impl Hammer<'_> {
    /// Sends a packet. Returns the sockets that it was forwarded with.
    fn send(&mut self, side: Side, packet: &Packet) -> Option<(Socket, Socket)> {
        let mut ifindexes = self.ifindexes.iter();
        let (_, ifindex) = ifindexes.find(|(s, _)| *s == side).expect("a side");
        let result = run_once(self.program, *ifindex, &packet.bytes(false));
        let (action, frame) = result.expect("a test run");
        let forwarded = ForwardedPacket::from_kernel(side, action, &frame);
        if let Some(reply) = forwarded.as_ref().filter(|_| side == Side::Provider) {
            let mac = reply.packet.to;
            assert!(CLIENT_MACS.contains(&mac), "a reply to {mac:02x?}");
        }
        if forwarded.is_some() {
            self.forwarded += 1;
        } else {
            self.dropped += 1;
        }
        forwarded.map(|packet| packet.sockets())
    }

    fn pick_client(&mut self) -> Client {
        let side = *self.random.pick(&[Side::A, Side::B]);
        let port = 40_000 + u16::try_from(self.random.below(PORTS)).expect("a port");
        (side, port, !self.random.one_in(4))
    }

    /// Sends a random packet of a client.
    fn send_of_client(&mut self, client: Client) {
        let (side, port, is_tcp) = client;
        let packet = if is_tcp {
            let segment = tcp((CLIENT, port), (ENDPOINT, HTTPS));
            match self.random.below(16) {
                0..=4 => segment.syn(1_000),
                5 => segment.syn(90_000),
                6..=9 => segment.ack(1_001, 5_001),
                10 => segment
                    .with_flags(PSH | ACK, 1_001, 5_001)
                    .with_payload(b"x"),
                11 => segment.with_flags(FIN | ACK, 1_001, 5_001),
                12 => segment.ack(1_002, 5_002),
                13 => segment.with_flags(FIN | ACK, 1_001, 5_002),
                14 => segment.with_flags(RST, 1_001, 0),
                _ => segment.with_flags(RST, 1 << 30, 0),
            }
        } else {
            udp((CLIENT, port), (ENDPOINT, DNS), b"question")
        };
        let packet = packet.with_source_mac(*self.random.pick(&CLIENT_MACS));
        if let Some(mapping) = self.send(side, &packet.sent_to(side)) {
            self.mappings.insert(client, mapping);
        }
    }

    /// Sends a random packet of a client's backend.
    fn send_of_backend(&mut self, client: Client) {
        let Some((nat, backend)) = self.mappings.get(&client).copied() else {
            return;
        };
        let packet = if client.2 {
            let segment = tcp(backend, nat);
            match self.random.below(16) {
                0..=6 => segment.syn_ack(5_000, 1_001),
                7..=9 => segment.ack(5_001, 1_001),
                10 => segment.with_flags(FIN | ACK, 5_001, 1_001),
                11 => segment.with_flags(FIN | ACK, 5_001, 1_002),
                12 => segment.ack(5_002, 1_002),
                13 => segment.with_flags(RST, 5_001, 0),
                14 => segment.with_flags(RST | ACK, 0, 1_001),
                _ => segment.ack(5_001, 1_002),
            }
        } else {
            udp(backend, nat, b"answer")
        };
        self.send(Side::Provider, &packet.with_source_mac(BACKEND_MAC));
    }

    /// Opens a flow, as its client and backend do.
    fn open(&mut self, client: Client) {
        let (side, port, is_tcp) = client;
        if !is_tcp {
            for _ in 0..2 {
                self.send_of_client(client);
                self.send_of_backend(client);
            }
            return;
        }
        let segment = tcp((CLIENT, port), (ENDPOINT, HTTPS))
            .with_source_mac(CLIENT_MACS[0])
            .sent_to(side);
        let Some((nat, backend)) = self.send(side, &segment.clone().syn(1_000)) else {
            return;
        };
        self.mappings.insert(client, (nat, backend));
        let answer = tcp(backend, nat).with_source_mac(BACKEND_MAC);
        self.send(Side::Provider, &answer.syn_ack(5_000, 1_001));
        self.send(side, &segment.ack(1_001, 5_001));
    }

    fn run(&mut self) {
        while self.forwarded + self.dropped < PACKETS as usize {
            let client = self.pick_client();
            match self.random.below(4) {
                0 => self.open(client),
                1 => self.send_of_backend(client),
                _ => self.send_of_client(client),
            }
        }
    }
}

/// Pins this thread to a processor. With one processor that fails, and is not needed.
fn pin_to_cpu(processor: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(processor).expect("a processor");
    let _only_one = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

/// Returns true if an entry is still visible.
fn is_still_visible(table: &FlowTable<V4>, index: u32, control: Control) -> bool {
    at_index::<V4, _>(table, index)
        .is_some_and(|now| now.control.is_visible() && now.control.is_same_entry(control))
}

/// Expects that no two entries have one key, at any moment.
fn expect_unique_keys(table: &FlowTable<V4>) {
    let mut seen: HashMap<FlowKey<V4>, (u32, Control)> = HashMap::new();
    for found in table.entries(0) {
        let key = found.place.key();
        // What was read belongs to one entry only if that is still there.
        if !is_still_visible(table, found.index, found.control) {
            continue;
        }
        if let Some((index, control)) = seen.insert(key, (found.index, found.control)) {
            // The first entry may have been removed before the second was inserted.
            assert!(
                !is_still_visible(table, index, control),
                "{key:?} is in the places {index} and {}",
                found.index
            );
        }
    }
}

/// Expects that no count has fallen below zero.
fn expect_sane_counts(tables: &FlowTableSet, slots: &[u32]) {
    let places = u64::from(BUCKETS) * 4;
    // Each processor may have counted a flow that it is about to open.
    let most = places + 2;
    let established = tables.table_usage::<V4>().established.get();
    assert!(established <= most, "{established} established flows");
    for slot in slots {
        let usage = tables.usage(*slot);
        assert!(
            usage.flows.get() <= most && usage.established.get() <= most,
            "{usage:?} of connection {slot}"
        );
    }
}

/// Expects that entries and counts agree when no packet is processed.
fn expect_consistent(tables: &FlowTableSet, slots: &[u32]) {
    let table = V4::flow_table(tables);
    expect_unique_keys(table);
    let entries: Vec<FlowRef<V4>> = table.entries(0).collect();
    for found in &entries {
        let is_paired = table.peer(found).is_some();
        assert!(
            is_paired || !found.control.is_confirmed(),
            "no other direction: {:?} {:?}",
            found.key(),
            found.control.state()
        );
    }
    let count = |slot: u32, is_counted: fn(Control) -> bool| {
        let counted = entries.iter().filter(|found| {
            let entry = found.entry();
            entry.connection_slot() == slot
                && entry.direction() == Direction::ToService
                && is_counted(found.control)
        });
        counted.count() as u64
    };
    let mut all = 0;
    for slot in slots {
        let usage = tables.usage(*slot);
        let established = count(*slot, Control::is_confirmed);
        let open = count(*slot, |control| !control.is(PlaceState::Closed));
        assert_eq!(
            (usage.flows.get(), usage.established.get()),
            (open, established),
            "counts (left) and entries of connection {slot}"
        );
        all += established;
    }
    assert_eq!(tables.table_usage::<V4>().established.get(), all);
}

#[test]
fn two_processors_keep_the_flow_table_consistent() {
    with_sized_harness(0, BUCKETS, |harness| {
        let program = harness.program();
        let ifindexes =
            [Side::A, Side::B, Side::Provider].map(|side| (side, harness.ifindex(side)));
        let tables = harness.flow_tables();
        let slots: Vec<u32> = harness.contents().connections.keys().copied().collect();
        let mut gc = FlowGc::new(tables.clone());
        for round in 1..=4_u64 {
            let begin = Barrier::new(3);
            let running = AtomicUsize::new(2);
            let (forwarded, scans) = thread::scope(|scope| {
                let hammers: Vec<_> = (0..2)
                    .map(|processor| {
                        let (begin, running) = (&begin, &running);
                        scope.spawn(move || {
                            pin_to_cpu(processor);
                            let seed = 2 * round + u64::try_from(processor).expect("few");
                            let mut hammer = Hammer {
                                program,
                                ifindexes,
                                random: Random::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)),
                                mappings: BTreeMap::new(),
                                forwarded: 0,
                                dropped: 0,
                            };
                            begin.wait();
                            hammer.run();
                            running.fetch_sub(1, Ordering::Relaxed);
                            (hammer.forwarded, hammer.dropped)
                        })
                    })
                    .collect();
                begin.wait();
                let mut scans = 0;
                while running.load(Ordering::Relaxed) > 0
                    && !hammers.iter().any(|h| h.is_finished())
                {
                    expect_unique_keys(V4::flow_table(tables));
                    expect_sane_counts(tables, &slots);
                    // Counts that change all the time must not be corrected by what was found a moment ago.
                    gc.collect();
                    scans += 1;
                    thread::yield_now();
                }
                let forwarded: Vec<(usize, usize)> = hammers
                    .into_iter()
                    .map(|hammer| hammer.join().expect("a processor"))
                    .collect();
                (forwarded, scans)
            });
            println!("forwarded and not {forwarded:?}, the table read {scans} times");
            expect_consistent(tables, &slots);
            // The test is valid only if most packets belonged to flows.
            assert!(forwarded.iter().all(|(yes, no)| yes > no), "{forwarded:?}");
        }
    });
}
