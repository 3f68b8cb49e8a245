//! Sending of packets through the native data path and the kernel's program, and the comparison of the results.

use aya::{TestRun as _, programs::TestRunOptions};
use gateway::bpf::maps;
use gateway_common::{DropReason, Verdict, maps::Statistic};
use std::collections::BTreeMap;

use crate::{
    datapath::{fast_path_oracle, fuzz},
    packet::Packet,
};

use super::{Connection, DifferentialHarness};
use crate::datapath::assertions::*;
use crate::packet::{addresses::*, builders::*};

impl DifferentialHarness {
    /// Sends a packet through the native data path only, for conditions that can't be produced in the kernel.
    pub fn send_native(&mut self, from: Side, packet: &Packet) -> Verdict {
        self.send_native_bytes(from, &packet.bytes(false))
    }

    /// Sends a frame of any bytes through the native data path only.
    pub fn send_native_bytes(&mut self, from: Side, frame: &[u8]) -> Verdict {
        fast_path_oracle::process_on_both_paths(&mut self.native, self.ifindexes[&from], frame).0
    }

    /// Sends a packet through the native data path only, and returns its result.
    pub fn run_native(&mut self, from: Side, packet: &Packet) -> PacketResult {
        let (verdict, frame) = fast_path_oracle::process_on_both_paths(
            &mut self.native,
            self.ifindexes[&from],
            &packet.bytes(false),
        );
        let egress_side = match verdict {
            Verdict::Redirect(slot) => self.side_of_egress(slot),
            _ => None,
        };
        PacketResult {
            verdict,
            frame,
            egress_side,
        }
    }

    /// Sends a packet through the kernel's program only. Returns what it was forwarded as, or nothing.
    ///
    /// # Panics
    /// Panics if the kernel refuses the test run.
    #[must_use]
    pub fn run_kernel(&self, from: Side, packet: &Packet) -> Option<ForwardedPacket> {
        let (action, frame) = self.run_in_kernel(self.ifindexes[&from], &packet.bytes(false));
        ForwardedPacket::from_kernel(from, action, &frame)
    }

    pub(super) fn kernel_drops(&self) -> BTreeMap<DropReason, u64> {
        self.maps.drops().expect("the counters")
    }

    pub(super) fn kernel_statistics(&self) -> Vec<(Statistic, u64)> {
        self.maps.statistics().expect("the counters")
    }

    /// Sends a packet through both platforms.
    ///
    /// # Panics
    /// Panics if native and kernel results differ.
    #[track_caller]
    pub fn send(&mut self, from: Side, packet: &Packet) -> PacketResult {
        self.send_bytes(from, &packet.bytes(false))
    }

    /// Sends a packet whose checksum is left to hardware through both platforms.
    ///
    /// # Panics
    /// Panics if native and kernel results differ.
    #[track_caller]
    pub fn send_offloaded(&mut self, from: Side, packet: &Packet) -> PacketResult {
        self.send_bytes(from, &packet.bytes(true))
    }

    /// Sends a frame of any bytes through both platforms.
    ///
    /// # Panics
    /// Panics if native and kernel results differ.
    #[track_caller]
    pub fn send_bytes(&mut self, from: Side, frame: &[u8]) -> PacketResult {
        self.recorded_frames
            .extend(fuzz::encode_record(from, frame));
        let ifindex = self.ifindexes[&from];
        let drops_before = self.native.drops.clone();
        // Closed flows expire after a minute, which a long test takes on a busy machine.
        self.native.now = maps::now();
        let (verdict, after) =
            fast_path_oracle::process_on_both_paths(&mut self.native, ifindex, frame);
        let kernel_before = (self.kernel_drops(), self.kernel_statistics());
        let (action, kernel_after) = self.run_in_kernel(ifindex, frame);
        let expected = match verdict {
            Verdict::Pass => 2,
            Verdict::Drop(..) => 1,
            Verdict::Reply
            | Verdict::TcpReset(..)
            | Verdict::IcmpError(..)
            | Verdict::Redirect(_) => 4,
        };
        let show = |bytes: &[u8]| match Packet::parse(bytes) {
            Ok(packet) => packet.to_string(),
            Err(error) => format!("  {error}: {bytes:02x?}"),
        };
        let describe = || {
            format!(
                "sent into {from:?}:\n{}\nnative {verdict:?}:\n{}\nkernel action {action}:\n{}",
                show(frame),
                show(&after),
                show(&kernel_after)
            )
        };
        assert_eq!(action, expected, "the verdicts differ\n{}", describe());
        assert!(after == kernel_after, "the packets differ\n{}", describe());
        // Both platforms must count the same drop reasons.
        let counted = |before: u64, after: u64| after - before;
        for reason in DropReason::ALL {
            let of = |drops: &BTreeMap<DropReason, u64>| drops.get(reason).copied().unwrap_or(0);
            let native = counted(
                drops_before.get(reason).copied().unwrap_or(0),
                self.native.drops.get(reason).copied().unwrap_or(0),
            );
            let kernel = counted(of(&kernel_before.0), of(&self.kernel_drops()));
            assert_eq!(
                native,
                kernel,
                "{reason:?} is counted differently\n{}",
                describe()
            );
        }
        let out = match verdict {
            Verdict::Redirect(slot) => self.side_of_egress(slot),
            Verdict::Reply | Verdict::TcpReset(..) | Verdict::IcmpError(..) => Some(from),
            _ => None,
        };
        PacketResult {
            verdict,
            frame: after,
            egress_side: out,
        }
    }

    /// Returns the frames sent since the last reset, encoded as a sequence of the fuzzer's corpus.
    #[must_use]
    pub fn recorded_frames(&self) -> &[u8] {
        &self.recorded_frames
    }

    pub(super) fn side_of_egress(&self, slot: u32) -> Option<Side> {
        let ifindex = self.contents.tx_ports.get(&slot)?;
        let mut sides = self.ifindexes.iter();
        sides
            .find(|(_, index)| *index == ifindex)
            .map(|(side, _)| *side)
    }

    /// Runs the kernel's program on a frame, and returns its action and the frame afterwards.
    pub(super) fn run_in_kernel(&self, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let length = u32::try_from(frame.len()).expect("a frame");
        let context = [0, length, 0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        let mut after = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let program = self.program.xdp().expect("the program");
        let result = program.test_run(options).expect("a test run");
        after.truncate(result.data_size_out as usize);
        (result.return_value, after)
    }

    /// Establishes a TCP connection of A's client.
    ///
    /// # Panics
    /// Panics if it does not open.
    #[track_caller]
    pub fn connect(&mut self, client_port: u16) -> Connection {
        let client = (CLIENT, client_port);
        let endpoint = (ENDPOINT, HTTPS);
        let syn = self.send(Side::A, &tcp(client, endpoint).syn(1_000));
        let (nat, backend) = syn.expect_forwarded(Side::Provider).sockets();
        let answer = self.send(
            Side::Provider,
            &tcp(backend, nat)
                .with_source_mac(BACKEND_MAC)
                .syn_ack(5_000, 1_001),
        );
        answer.expect_forwarded(Side::A);
        let ack = self.send(Side::A, &tcp(client, endpoint).ack(1_001, 5_001));
        ack.expect_forwarded(Side::Provider);
        Connection {
            client,
            endpoint,
            nat,
            backend,
        }
    }
}
