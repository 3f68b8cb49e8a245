//! Programs for the kernel, put together instruction by instruction: small ones that stand beside the
//! gateway's when it is measured.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

/// Results, and the program's own.
pub const R0: Register = Register(0);
/// The first argument: at the beginning the context.
pub const R1: Register = Register(1);
/// The second argument.
pub const R2: Register = Register(2);
/// The third argument.
pub const R3: Register = Register(3);
/// The fourth argument.
pub const R4: Register = Register(4);
/// The fifth argument.
pub const R5: Register = Register(5);
/// Those from here on outlive calls.
pub const R6: Register = Register(6);
/// Likewise.
pub const R7: Register = Register(7);
/// Likewise.
pub const R8: Register = Register(8);
/// Likewise.
pub const R9: Register = Register(9);
/// The end of the stack.
pub const R10: Register = Register(10);

/// How many bytes are moved.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Width {
    /// 4.
    Word = 0x00,
    /// 2.
    Half = 0x08,
    /// 1.
    Byte = 0x10,
    /// 8.
    Double = 0x18,
}

/// Arithmetic on 64 bits.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Operation {
    /// `+`.
    Add = 0x00,
    /// `-`.
    Subtract = 0x10,
    /// `*`.
    Multiply = 0x20,
    /// `&`.
    And = 0x50,
    /// `<<`.
    ShiftLeft = 0x60,
    /// `>>`.
    ShiftRight = 0x70,
    /// `^`.
    Xor = 0xa0,
    /// `=`.
    Move = 0xb0,
}

/// Comparisons, without signs.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Comparison {
    /// `==`.
    Equal = 0x10,
    /// `>`.
    Greater = 0x20,
    /// `!=`.
    NotEqual = 0x50,
}

/// `bpf_ktime_get_ns`.
pub const KTIME_GET_NS: i32 = 5;
/// `bpf_map_lookup_elem`.
pub const MAP_LOOKUP_ELEM: i32 = 1;
/// `bpf_tail_call`.
pub const TAIL_CALL: i32 = 12;
/// `bpf_redirect_map`.
pub const REDIRECT_MAP: i32 = 51;
/// `bpf_redirect`.
pub const REDIRECT: i32 = 23;
/// `bpf_skb_vlan_push`.
pub const VLAN_PUSH: i32 = 18;

/// A jump that has not landed yet.
#[derive(Debug)]
pub struct ForwardJump(usize);

/// A place in a program.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// A program that grows.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    code: Vec<u64>,
    /// Jumps whose goal is the end: the last two instructions.
    to_end: Vec<usize>,
}

impl Assembler {
    fn emit(&mut self, opcode: u8, to: Register, from: Register, offset: i16, number: i32) {
        let word = u64::from(opcode)
            | u64::from(to.0) << 8
            | u64::from(from.0) << 12
            | u64::from(offset.cast_unsigned()) << 16
            | u64::from(number.cast_unsigned()) << 32;
        self.code.push(word);
    }

    /// `to op= number`.
    pub fn alu_immediate(&mut self, operation: Operation, to: Register, number: i32) -> &mut Self {
        self.emit(0x07 | operation as u8, to, R0, 0, number);
        self
    }

    /// `to op= from`.
    pub fn alu_register(
        &mut self,
        operation: Operation,
        to: Register,
        from: Register,
    ) -> &mut Self {
        self.emit(0x0f | operation as u8, to, from, 0, 0);
        self
    }

    /// `to = *(from + offset)`.
    pub fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) -> &mut Self {
        self.emit(0x61 | width as u8, to, from, offset, 0);
        self
    }

    /// `*(to + offset) = from`.
    pub fn store(&mut self, width: Width, to: Register, offset: i16, from: Register) -> &mut Self {
        self.emit(0x63 | width as u8, to, from, offset, 0);
        self
    }

    /// `to = number`, of 64 bits.
    pub fn load_imm64(&mut self, to: Register, number: u64) -> &mut Self {
        self.emit_imm64(to, 0, number)
    }

    /// `to = ` a map.
    pub fn load_map(&mut self, to: Register, map: BorrowedFd<'_>) -> &mut Self {
        let descriptor = u64::from(map.as_raw_fd().cast_unsigned());
        self.emit_imm64(to, 1, descriptor)
    }

    /// `to = ` the first element of an array.
    pub fn load_map_value(&mut self, to: Register, map: BorrowedFd<'_>) -> &mut Self {
        let descriptor = u64::from(map.as_raw_fd().cast_unsigned());
        self.emit_imm64(to, 2, descriptor)
    }

    fn emit_imm64(&mut self, to: Register, kind: u8, number: u64) -> &mut Self {
        #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
        let (low, high) = (number as u32, (number >> 32) as u32);
        self.emit(0x18, to, Register(kind), 0, low.cast_signed());
        self.emit(0, R0, R0, 0, high.cast_signed());
        self
    }

    /// To the end, with what is in `R0`, if the comparison with a number holds.
    pub fn exit_if(&mut self, comparison: Comparison, left: Register, right: i32) -> &mut Self {
        self.to_end.push(self.code.len());
        self.emit(0x05 | comparison as u8, left, R0, 0, right);
        self
    }

    /// The same with another register.
    pub fn exit_if_register(
        &mut self,
        comparison: Comparison,
        left: Register,
        right: Register,
    ) -> &mut Self {
        self.to_end.push(self.code.len());
        self.emit(0x0d | comparison as u8, left, right, 0, 0);
        self
    }

    /// Over what follows, up to where it lands, if the comparison holds.
    pub fn jump_forward_if(
        &mut self,
        comparison: Comparison,
        left: Register,
        right: i32,
    ) -> ForwardJump {
        self.emit(0x05 | comparison as u8, left, R0, 0, right);
        ForwardJump(self.code.len() - 1)
    }

    /// The same with another register.
    pub fn jump_forward_if_register(
        &mut self,
        comparison: Comparison,
        left: Register,
        right: Register,
    ) -> ForwardJump {
        self.emit(0x0d | comparison as u8, left, right, 0, 0);
        ForwardJump(self.code.len() - 1)
    }

    /// Here a skip lands.
    ///
    /// # Panics
    /// When it is too far.
    pub fn bind(&mut self, ForwardJump(jump): ForwardJump) -> &mut Self {
        let distance = i16::try_from(self.code.len() - jump - 1).expect("a short skip");
        self.code[jump] |= u64::from(distance.cast_unsigned()) << 16;
        self
    }

    /// Here, for [`Assembler::back_if`].
    #[must_use]
    pub const fn label(&self) -> Label {
        Label(self.code.len())
    }

    /// Back to a place, if the comparison holds. The verifier has to see that this ends.
    ///
    /// # Panics
    /// When it is too far.
    pub fn jump_back_if(
        &mut self,
        Label(to): Label,
        comparison: Comparison,
        left: Register,
        right: i32,
    ) -> &mut Self {
        let distance = i16::try_from(self.code.len() + 1 - to).expect("a short loop");
        self.emit(0x05 | comparison as u8, left, R0, -distance, right);
        self
    }

    /// `*to += from`, of 64 bits, whoever else adds.
    pub fn add_to(&mut self, to: Register, from: Register) -> &mut Self {
        self.emit(0xdb, to, from, 0, 0);
        self
    }

    /// Calls a helper.
    pub fn call(&mut self, helper: i32) -> &mut Self {
        self.emit(0x85, R0, R0, 0, helper);
        self
    }

    /// Ends it and loads it as an XDP program that takes frames of several buffers.
    ///
    /// # Errors
    /// When the kernel refuses it.
    ///
    /// # Panics
    /// When it is too long.
    pub fn load_xdp(&self) -> io::Result<OwnedFd> {
        load(
            &self.instructions(),
            BPF_PROG_TYPE_XDP,
            BPF_XDP,
            BPF_F_XDP_HAS_FRAGS,
        )
    }

    /// Ends it and loads it as a classifier of traffic control.
    ///
    /// # Errors
    /// When the kernel refuses it.
    ///
    /// # Panics
    /// When it is too long.
    pub fn load_classifier(&self) -> io::Result<OwnedFd> {
        load(&self.instructions(), BPF_PROG_TYPE_SCHED_CLS, 0, 0)
    }

    fn instructions(&self) -> Vec<u64> {
        let mut code = self.code.clone();
        for jump in &self.to_end {
            let distance = i16::try_from(self.code.len() - jump - 1).expect("a short program");
            code[*jump] |= u64::from(distance.cast_unsigned()) << 16;
        }
        code.push(0x95);
        code
    }
}

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

fn bpf<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, and what they point to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).unwrap_or(0))
}

fn owned_fd(number: i32) -> OwnedFd {
    // SAFETY: a command that makes one returned it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ProgLoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

fn load(code: &[u64], kind: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    // The verifier's log of a loop would be longer than any room for it: it is asked for on failure only.
    let mut attributes = ProgLoadAttributes {
        kind,
        count: u32::try_from(code.len()).expect("a short program"),
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags,
        name: [0; 16],
        ifindex: 0,
        attach_type,
    };
    match bpf(BPF_PROG_LOAD, &mut attributes) {
        Ok(program) => Ok(owned_fd(program)),
        Err(error) => {
            let mut log = vec![0u8; 1 << 16];
            attributes.log_level = 1;
            attributes.log_size = u32::try_from(log.len()).expect("a short log");
            attributes.log = log.as_mut_ptr() as u64;
            // It fails as before, and says why.
            let _same = bpf(BPF_PROG_LOAD, &mut attributes);
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0');
            Err(io::Error::other(format!("{error}:\n{log}")))
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjPinAttributes {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Gives a program a name in a bpf file system.
///
/// # Errors
/// When the kernel refuses it.
pub fn pin(program: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let mut attributes = ObjPinAttributes {
        path: path.as_ptr() as u64,
        descriptor: program.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attributes).map(|_| ())
}

/// Kinds of maps.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum MapKind {
    /// Values at places from 0 on.
    Array = 2,
    /// Programs to call.
    Programs = 3,
}

/// Makes a map with keys of 4 bytes.
///
/// # Errors
/// When the kernel refuses it.
pub fn create_map(kind: MapKind, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    let mut attributes = [kind as u32, 4, value_size, entries, 0];
    bpf(BPF_MAP_CREATE, &mut attributes).map(owned_fd)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TestRunAttributes {
    program: u32,
    result: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// `BPF_F_TEST_XDP_LIVE_FRAMES`: frames go where the program sends them.
const LIVE_FRAMES: u32 = 1 << 1;

/// Runs a program on a frame that comes in by an interface, so many times over. Returns its last result,
/// and how many nanoseconds one took.
///
/// # Errors
/// When the kernel refuses.
pub fn run(
    program: BorrowedFd<'_>,
    ifindex: u32,
    frame: &[u8],
    repeat: u32,
) -> io::Result<(u32, u32)> {
    let mut after = vec![0; frame.len() + 256];
    let context = xdp_md(ifindex, frame);
    let mut attributes = TestRunAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_size: u32::try_from(frame.len()).expect("a frame"),
        data_in: frame.as_ptr() as u64,
        data_out_size: u32::try_from(after.len()).expect("a frame"),
        data_out: after.as_mut_ptr() as u64,
        repeat,
        context_in_size: u32::try_from(size_of_val(&context)).expect("a context"),
        context_in: context.as_ptr() as u64,
        ..TestRunAttributes::zeroed()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok((attributes.result, attributes.duration))
}

/// Has a program of this thread's network namespace send frames, which are all like this one at first.
///
/// # Errors
/// When the kernel refuses.
pub fn send_live_frames(
    program: BorrowedFd<'_>,
    frame: &[u8],
    repeat: u32,
    batch: u32,
) -> io::Result<()> {
    let mut attributes = TestRunAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_size: u32::try_from(frame.len()).expect("a frame"),
        data_in: frame.as_ptr() as u64,
        repeat,
        flags: LIVE_FRAMES,
        batch,
        ..TestRunAttributes::zeroed()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes).map(|_| ())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreateAttributes {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

const BPF_LINK_CREATE: libc::c_int = 28;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Attaches a program to an interface of this thread's network namespace, as long as the result lives.
///
/// # Errors
/// When the kernel refuses.
pub fn attach(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut link = LinkCreateAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &mut link).map(owned_fd)
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_md(ifindex: u32, frame: &[u8]) -> [u32; 6] {
    let length = u32::try_from(frame.len()).expect("a frame");
    [0, length, 0, ifindex, 0, 0]
}
