//! The wrapper of timed programs. It restores the packet's headers and tail-calls the measured program, since the
//! kernel's repeated test run does not restore them.
//!
//! The cost of the wrapper is measured with a program that does nothing, and subtracted.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use gateway::bpf::syscalls;
use gateway_common::{
    flow::{FlowKey, NetworkProto},
    {V4, V6},
};

use tests::bpf::{
    asm::{
        Assembler, Comparison, MAP_LOOKUP_ELEM, Operation, R0, R1, R2, R3, R4, R5, R6, R7, R10,
        REDIRECT_MAP, TAIL_CALL, Width,
    },
    syscalls::{MapKind, create_map},
};

/// `XDP_PASS`.
pub(crate) const XDP_PASS: u32 = 2;
/// `XDP_DROP`.
const XDP_DROP: i32 = 1;

/// Variation of packets between runs: the last two bytes of the IPv4 source and the source port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    /// All packets are the same.
    Nothing,
    /// A number of flows, a power of two, in an order that caches can't predict.
    Flows(u32),
    /// Every packet opens a flow.
    Always,
}

/// Number of varied source ports of an address.
const PORTS: u32 = 1 << 15;
/// First varied source port.
const FIRST_PORT: u32 = 16_384;

/// Returns the last two bytes of the source address and the source port of flow `number`, in memory order.
#[must_use]
pub(crate) fn varied(number: u32) -> (u16, u16) {
    let port = u16::try_from(FIRST_PORT + number % PORTS).expect("a port");
    let host = u16::try_from(number / PORTS % 0x1_0000).expect("half an address");
    (host, port)
}

/// The wrapper program.
pub(crate) struct Wrapper {
    program: OwnedFd,
    targets: OwnedFd,
    /// Map with the number of the next packet.
    _counter: OwnedFd,
}

impl Wrapper {
    /// Creates a wrapper that restores the first `restored` bytes of a frame, a multiple of 8.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    pub(crate) fn new(frame: &[u8], restored: usize, vary: Vary) -> io::Result<Self> {
        let targets = create_map(MapKind::Programs, 4, 1)?;
        let counter = create_map(MapKind::Array, 8, 1)?;
        let offset = |bytes: usize| i16::try_from(bytes).expect("within a header");
        let mut code = Assembler::default();
        code.alu_register(Operation::Move, R6, R1)
            .alu_immediate(Operation::Move, R0, 0)
            .load(Width::Word, R2, R6, 0)
            .load(Width::Word, R3, R6, 4)
            .alu_register(Operation::Move, R4, R2)
            .alu_immediate(Operation::Add, R4, i32::from(offset(restored)))
            .exit_if_register(Comparison::Greater, R4, R3);
        for (number, bytes) in frame[..restored].chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
            code.load_imm64(R5, word)
                .store(Width::Double, R2, offset(number * 8), R5);
        }
        if vary != Vary::Nothing {
            code.load_map_value(R1, counter.as_fd())
                .load(Width::Double, R5, R1, 0)
                .alu_register(Operation::Move, R4, R5)
                .alu_immediate(Operation::Add, R4, 1)
                .store(Width::Double, R1, 0, R4);
            if let Vary::Flows(flows) = vary {
                // An odd factor permutes the numbers below a power of two.
                code.alu_immediate(
                    Operation::Multiply,
                    R5,
                    0x9e37_79b1_u32.cast_signed() & 0x7fff_ffff,
                )
                .alu_immediate(Operation::And, R5, (flows - 1).cast_signed());
            }
            code.alu_register(Operation::Move, R4, R5)
                .alu_immediate(Operation::And, R4, (PORTS - 1).cast_signed())
                .alu_immediate(Operation::Add, R4, FIRST_PORT.cast_signed())
                .store(Width::Half, R2, 34, R4)
                .alu_immediate(
                    Operation::ShiftRight,
                    R5,
                    PORTS.trailing_zeros().cast_signed(),
                )
                .store(Width::Half, R2, 28, R5);
        }
        code.alu_register(Operation::Move, R1, R6)
            .load_map(R2, targets.as_fd())
            .alu_immediate(Operation::Move, R3, 0)
            .call(TAIL_CALL)
            .alu_immediate(Operation::Move, R0, 0);
        Ok(Self {
            program: code.load_xdp()?,
            targets,
            _counter: counter,
        })
    }

    /// Sets the measured program, and returns the wrapper program.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn calling(&self, target: BorrowedFd<'_>) -> io::Result<BorrowedFd<'_>> {
        syscalls::update(self.targets.as_fd(), &0u32, &target.as_raw_fd())?;
        Ok(self.program.as_fd())
    }
}

/// Returns a program that does nothing.
///
/// # Errors
/// Fails if the kernel refuses it.
pub(crate) fn pass_program() -> io::Result<OwnedFd> {
    Assembler::default()
        .alu_immediate(Operation::Move, R0, XDP_PASS.cast_signed())
        .load_xdp()
}

/// Returns a program with the minimum work of forwarding: checks of headers, one look-up of the same key in a hash map
/// of the kernel, new MAC addresses, and a redirect.
///
/// # Errors
/// Fails if the kernel refuses it.
pub(crate) fn bare_v4(
    flows: BorrowedFd<'_>,
    devices: BorrowedFd<'_>,
    network: u32,
) -> io::Result<OwnedFd> {
    end(&mut read_v4(), KEY_V4, network, flows, devices)
}

/// Stack offset of the IPv4 key.
const KEY_V4: i16 = -16;

/// Returns a program that checks headers and builds the key.
fn read_v4() -> Assembler {
    const { assert!(size_of::<FlowKey<V4>>() == 16) };
    let mut code = begin_v4();
    for (key_offset, offset) in [(4, 26), (8, 30), (12, 34)] {
        code.load(Width::Word, R5, R7, offset)
            .store(Width::Word, R10, KEY_V4 + key_offset, R5);
    }
    code
}

/// Starts a program that needs a TCP segment over IPv4. `R7` points to the frame.
pub(crate) fn begin_v4() -> Assembler {
    let mut code = begin(54, 0x0008);
    code.load(Width::Byte, R4, R7, 14)
        .exit_if(Comparison::NotEqual, R4, 0x45)
        .load(Width::Byte, R4, R7, 23)
        .exit_if(Comparison::NotEqual, R4, 6);
    code
}

/// Returns the part of the bare program before its look-up. It drops the packet.
///
/// # Errors
/// Fails if the kernel refuses it.
pub(crate) fn headers_v4() -> io::Result<OwnedFd> {
    read_v4()
        .alu_immediate(Operation::Move, R0, XDP_DROP)
        .load_xdp()
}

/// Returns the IPv6 counterpart of [`bare_v4`].
///
/// # Errors
/// Fails if the kernel refuses it.
pub(crate) fn bare_v6(
    flows: BorrowedFd<'_>,
    devices: BorrowedFd<'_>,
    network: u32,
) -> io::Result<OwnedFd> {
    const KEY: i16 = -44;
    // IPv6 addresses are at multiples of eight.
    const { assert!(size_of::<FlowKey<V6>>() == 40) };
    let mut code = begin(74, 0xdd86);
    code.load(Width::Byte, R4, R7, 20)
        .exit_if(Comparison::NotEqual, R4, 6);
    for part in 0..4 {
        code.load(Width::Double, R5, R7, 22 + part * 8).store(
            Width::Double,
            R10,
            KEY + 4 + part * 8,
            R5,
        );
    }
    code.load(Width::Word, R5, R7, 54)
        .store(Width::Word, R10, KEY + 36, R5);
    end(&mut code, KEY, network, flows, devices)
}

/// Starts a program that needs a frame of at least `length` bytes and this EtherType. `R7` points to the frame.
fn begin(length: i32, ether_type: i32) -> Assembler {
    let mut code = Assembler::default();
    code.load(Width::Word, R7, R1, 0)
        .load(Width::Word, R3, R1, 4)
        .alu_immediate(Operation::Move, R0, XDP_PASS.cast_signed())
        .alu_register(Operation::Move, R4, R7)
        .alu_immediate(Operation::Add, R4, length)
        .exit_if_register(Comparison::Greater, R4, R3)
        .load(Width::Half, R4, R7, 12)
        .exit_if(Comparison::NotEqual, R4, ether_type);
    code
}

fn end(
    code: &mut Assembler,
    key: i16,
    network: u32,
    flows: BorrowedFd<'_>,
    devices: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    code.load_imm64(R5, NetworkProto::new(network, 6).to_bits().into())
        .store(Width::Word, R10, key, R5)
        .load_map(R1, flows)
        .alu_register(Operation::Move, R2, R10)
        .alu_immediate(Operation::Add, R2, key.into())
        .call(MAP_LOOKUP_ELEM)
        .exit_if(Comparison::Equal, R0, 0)
        .load(Width::Double, R5, R0, 0)
        .store(Width::Double, R7, 0, R5)
        .load(Width::Word, R5, R0, 8)
        .store(Width::Word, R7, 8, R5);
    redirect(code, devices)
}

/// Ends a program by a redirect.
///
/// # Errors
/// Fails if the kernel refuses it.
pub(crate) fn redirect(code: &mut Assembler, devices: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    code.load_map(R1, devices)
        .alu_immediate(Operation::Move, R2, 0)
        .alu_immediate(Operation::Move, R3, 0)
        .call(REDIRECT_MAP)
        .load_xdp()
}
