//! Traffic between the two ends of a path without sockets. Small BPF programs at both ends generate, time-stamp,
//! reflect and count packets.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use gateway::bpf::syscalls;

use tests::bpf::{
    asm::{
        Assembler, Comparison, KTIME_GET_NS, Operation, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9,
        REDIRECT, Width,
    },
    syscalls::{MapKind, attach, create_map, send_live_frames},
};

/// `XDP_DROP`.
const XDP_DROP: i32 = 1;
/// `XDP_PASS`.
const XDP_PASS: i32 = 2;

/// Offset of the sending time in a frame: after the UDP header, at a multiple of eight.
const STAMP: i16 = 48;
/// Minimum length of a frame with a time stamp.
pub(crate) const FRAME: usize = 64;

/// Number of flows that packets alternate between, a power of two.
pub(crate) const FLOWS: u32 = 1 << 12;
const FIRST_PORT: i32 = 16_384;
/// Source ports of an address, if every packet opens a flow.
const PORTS: i32 = 1 << 15;

/// The flows of generated packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// [`FLOWS`] established flows in turn.
    Known,
    /// Each packet opens a flow.
    New,
}

/// Time stamps in packets. To read the clock twice takes as long as all other work on a packet at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Packets carry no time stamp, and are only counted.
    Off,
    /// Packets carry the time of sending.
    On,
}

/// The spacing of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pacing {
    /// Single packets, each sent after the previous one has arrived.
    Single,
    /// [`BURST`] packets at once, as network cards deliver them.
    Bursts,
}

/// Packets in a burst, a power of two.
const BURST: u32 = 32;

/// A stream of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// Flows of the packets.
    pub(crate) mix: Mix,
    /// Time stamps.
    pub(crate) clock: Clock,
    /// Spacing and rate in packets a second. None sends at the maximum rate.
    pub(crate) pace: Option<(Pacing, f64)>,
}

impl Stream {
    /// Returns the number of packets sent at once.
    const fn batch(self) -> u32 {
        match self.pace {
            None => 64,
            Some((Pacing::Bursts, _)) => BURST,
            Some((Pacing::Single, _)) => 1,
        }
    }
}

/// Sends UDP datagrams of 22 bytes out by an interface.
pub(crate) struct Generator {
    program: OwnedFd,
    frame: Vec<u8>,
    stream: Stream,
    _state: OwnedFd,
}

/// Maximum of clock readings until the next packets are due.
const MAX_CLOCK_READINGS: i32 = 4_000;

impl Generator {
    /// Creates a generator from a template frame.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn new(frame: &[u8], stream: Stream, ifindex: u32) -> io::Result<Self> {
        let Stream { mix, clock, pace } = stream;
        // State: the number of sent packets, and the time when the next are due.
        let state = create_map(MapKind::Array, 16, 1)?;
        let mut code = Assembler::default();
        code.load(Width::Word, R7, R1, 0)
            .load(Width::Word, R3, R1, 4)
            .alu_immediate(Operation::Move, R0, XDP_DROP)
            .alu_register(Operation::Move, R4, R7)
            .alu_immediate(Operation::Add, R4, i32::try_from(FRAME).expect("a length"))
            .exit_if_register(Comparison::Greater, R4, R3);
        // The kernel reuses a frame as it was sent, so its headers are restored.
        for (number, bytes) in frame[..FRAME].chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
            let offset = i16::try_from(number * 8).expect("within the frame");
            code.load_imm64(R5, word)
                .store(Width::Double, R7, offset, R5);
        }
        code.load_map_value(R1, state.as_fd())
            .load(Width::Double, R6, R1, 0)
            .alu_register(Operation::Move, R4, R6)
            .alu_immediate(Operation::Add, R4, 1)
            .store(Width::Double, R1, 0, R4);
        if let Some((_, per_second)) = pace {
            let interval = Duration::from_secs_f64(f64::from(stream.batch()) / per_second);
            let interval = i32::try_from(interval.as_nanos()).expect("less than two seconds");
            code.alu_register(Operation::Move, R4, R6).alu_immediate(
                Operation::And,
                R4,
                (stream.batch() - 1).cast_signed(),
            );
            let not_yet = code.jump_forward_if(Comparison::NotEqual, R4, 0);
            code.load(Width::Double, R9, R1, 8)
                .alu_immediate(Operation::Move, R8, 0);
            let again = code.label();
            code.alu_immediate(Operation::Add, R8, 1).call(KTIME_GET_NS);
            let due = code.jump_forward_if_register(Comparison::Greater, R0, R9);
            code.jump_back_if(again, Comparison::NotEqual, R8, MAX_CLOCK_READINGS)
                .bind(due)
                .alu_immediate(Operation::Add, R0, interval)
                .load_map_value(R1, state.as_fd())
                .store(Width::Double, R1, 8, R0)
                .bind(not_yet);
        }
        if mix == Mix::Known {
            code.alu_immediate(Operation::And, R6, (FLOWS - 1).cast_signed());
        }
        code.alu_register(Operation::Move, R4, R6)
            .alu_immediate(Operation::And, R4, PORTS - 1)
            .alu_immediate(Operation::Add, R4, FIRST_PORT)
            .store(Width::Half, R7, 34, R4);
        if mix == Mix::New {
            // The packet's id is the complement of the source address's end, so that the header checksum stays
            // the same.
            code.alu_immediate(
                Operation::ShiftRight,
                R6,
                PORTS.trailing_zeros().cast_signed(),
            )
            .alu_immediate(Operation::And, R6, 0x7f)
            .alu_immediate(Operation::ShiftLeft, R6, 8)
            .alu_immediate(Operation::Add, R6, 0x0504)
            .store(Width::Half, R7, 28, R6)
            .alu_immediate(Operation::Xor, R6, 0xffff)
            .store(Width::Half, R7, 18, R6);
        }
        if clock == Clock::On {
            code.call(KTIME_GET_NS).store(Width::Double, R7, STAMP, R0);
        }
        code.alu_immediate(Operation::Move, R1, ifindex.cast_signed())
            .alu_immediate(Operation::Move, R2, 0)
            .call(REDIRECT);
        Ok(Self {
            program: code.load_xdp()?,
            frame: frame.to_vec(),
            stream,
            _state: state,
        })
    }

    /// Sends packets.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn send(&self, packets: u32) -> io::Result<()> {
        let batch = self.stream.batch();
        send_live_frames(self.program.as_fd(), &self.frame, packets, batch)
    }
}

/// Starts a program that passes anything but UDP over IPv4 to the host. `R7` points to the frame.
fn udp_frames_only() -> Assembler {
    let mut code = Assembler::default();
    code.load(Width::Word, R7, R1, 0)
        .load(Width::Word, R3, R1, 4)
        .alu_immediate(Operation::Move, R0, XDP_PASS)
        .alu_register(Operation::Move, R4, R7)
        .alu_immediate(Operation::Add, R4, i32::from(STAMP) + 8)
        .exit_if_register(Comparison::Greater, R4, R3)
        .load(Width::Half, R4, R7, 12)
        .exit_if(Comparison::NotEqual, R4, 0x0008)
        .load(Width::Byte, R4, R7, 23)
        .exit_if(Comparison::NotEqual, R4, 17);
    code
}

/// Attaches a program that sends every datagram back to its source.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn reflect(ifindex: u32) -> io::Result<OwnedFd> {
    let mut code = udp_frames_only();
    for (one, other, width) in [
        (0, 6, Width::Word),
        (4, 10, Width::Half),
        (26, 30, Width::Word),
        (34, 36, Width::Half),
    ] {
        code.load(width, R4, R7, one)
            .load(width, R5, R7, other)
            .store(width, R7, one, R5)
            .store(width, R7, other, R4);
    }
    let program = code
        .alu_immediate(Operation::Move, R1, ifindex.cast_signed())
        .alu_immediate(Operation::Move, R2, 0)
        .call(REDIRECT)
        .load_xdp()?;
    attach(program.as_fd(), ifindex)
}

/// Bits by which times are shifted: the resolution is 64 ns.
const COARSE: i32 = 6;
/// Number of histogram buckets. The last one counts all longer times.
const BUCKETS: u32 = 1 << 14;

/// Counts and drops datagrams on arrival, with a histogram of their latency.
pub(crate) struct Counter {
    counted: OwnedFd,
    times: OwnedFd,
    _attached: OwnedFd,
}

impl Counter {
    /// Attaches a counter to an interface of this thread's network namespace.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn new(ifindex: u32, clock: Clock) -> io::Result<Self> {
        let counted = create_map(MapKind::Array, 8, 1)?;
        let times = create_map(MapKind::Array, 8 * BUCKETS, 1)?;
        let mut code = udp_frames_only();
        code.load_map_value(R1, counted.as_fd())
            .alu_immediate(Operation::Move, R4, 1)
            .add_to(R1, R4);
        if clock == Clock::On {
            code.call(KTIME_GET_NS)
                .load(Width::Double, R5, R7, STAMP)
                .alu_register(Operation::Subtract, R0, R5)
                .alu_immediate(Operation::ShiftRight, R0, COARSE)
                .alu_register(Operation::Move, R5, R0)
                .alu_immediate(Operation::Move, R0, XDP_DROP)
                .exit_if(Comparison::Greater, R5, (BUCKETS - 1).cast_signed())
                .alu_immediate(Operation::ShiftLeft, R5, 3)
                .load_map_value(R1, times.as_fd())
                .alu_register(Operation::Add, R1, R5)
                .alu_immediate(Operation::Move, R4, 1)
                .add_to(R1, R4);
        }
        let program = code
            .alu_immediate(Operation::Move, R0, XDP_DROP)
            .load_xdp()?;
        Ok(Self {
            counted,
            times,
            _attached: attach(program.as_fd(), ifindex)?,
        })
    }

    /// Returns the number of received packets.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn counted(&self) -> io::Result<u64> {
        Ok(syscalls::lookup(self.counted.as_fd(), &0u32)?.unwrap_or(0))
    }

    /// Waits until no more packets arrive, and returns their number.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn wait_until_stable(&self) -> io::Result<u64> {
        let mut last = self.counted()?;
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.counted()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Returns latency percentiles in microseconds, for shares of 1,000 packets.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn latency_percentiles<const N: usize>(
        &self,
        of_thousand: [u64; N],
    ) -> io::Result<[f64; N]> {
        let buckets: [[u64; 1 << 12]; BUCKETS as usize >> 12] =
            syscalls::lookup(self.times.as_fd(), &0u32)?.unwrap_or_else(bytemuck::Zeroable::zeroed);
        let buckets = buckets.as_flattened();
        let all = self.counted()?;
        Ok(of_thousand.map(|part| {
            let mut left = all * part / 1_000;
            for (number, count) in buckets.iter().enumerate() {
                if *count >= left {
                    return ((number + 1) << COARSE) as f64 / 1e3;
                }
                left -= count;
            }
            f64::INFINITY
        }))
    }
}

/// Measures the packet rate at maximum sending rate.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn rate(generator: &Generator, counter: &Counter, packets: u32) -> io::Result<Rate> {
    let before = counter.wait_until_stable()?;
    let begin = Instant::now();
    generator.send(packets)?;
    let took = begin.elapsed();
    let arrived = counter.wait_until_stable()? - before;
    Ok(Rate {
        per_second: arrived as f64 / took.as_secs_f64(),
        lost: u64::from(packets).saturating_sub(arrived),
    })
}

/// Attaches a program that redirects every frame from an interface to another: the cost of a path without a forwarder.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn redirect_between(from: u32, to: u32) -> io::Result<OwnedFd> {
    let program = udp_frames_only()
        .alu_immediate(Operation::Move, R1, to.cast_signed())
        .alu_immediate(Operation::Move, R2, 0)
        .call(REDIRECT)
        .load_xdp()?;
    attach(program.as_fd(), from)
}

/// A measured packet rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Packets a second.
    pub(crate) per_second: f64,
    /// Lost packets.
    pub(crate) lost: u64,
}
