//! Programs for the kernel, put together instruction by instruction: small ones that stand beside the
//! gateway's when it is measured.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use super::syscalls::{
    BPF_F_XDP_HAS_FRAGS, BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP, BPF_XDP, load,
};

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
