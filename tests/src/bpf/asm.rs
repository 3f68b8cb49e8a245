//! An assembler for small BPF programs, which tests and benchmarks run beside the gateway's program.

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

/// Return value of calls and of the program.
pub const R0: Register = Register(0);

/// The first argument. At the program's entry: the context.
pub const R1: Register = Register(1);

/// The second argument.
pub const R2: Register = Register(2);

/// The third argument.
pub const R3: Register = Register(3);

/// The fourth argument.
pub const R4: Register = Register(4);

/// The fifth argument.
pub const R5: Register = Register(5);

/// Callee-saved register.
pub const R6: Register = Register(6);

/// Callee-saved register.
pub const R7: Register = Register(7);

/// Callee-saved register.
pub const R8: Register = Register(8);

/// Callee-saved register.
pub const R9: Register = Register(9);

/// Frame pointer, the end of the stack.
pub const R10: Register = Register(10);

/// Size of a memory access.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Width {
    /// 4 bytes.
    Word = 0x00,
    /// 2 bytes.
    Half = 0x08,
    /// 1 byte.
    Byte = 0x10,
    /// 8 bytes.
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

/// Unsigned comparisons.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Comparison {
    /// `==`.
    Equal = 0x10,
    /// `>`.
    Greater = 0x20,
    /// `!=`.
    NotEqual = 0x50,
    /// `<=`.
    AtMost = 0xb0,
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

/// A forward jump whose target is not bound yet.
#[derive(Debug)]
pub struct ForwardJump(usize);

/// A target of backward jumps.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// A program under construction.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    code: Vec<u64>,
    /// Jumps to the exit instruction.
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

    /// `to = map`.
    pub fn load_map(&mut self, to: Register, map: BorrowedFd<'_>) -> &mut Self {
        let descriptor = u64::from(map.as_raw_fd().cast_unsigned());
        self.emit_imm64(to, 1, descriptor)
    }

    /// `to = &array[0]`.
    pub fn load_map_value(&mut self, to: Register, map: BorrowedFd<'_>) -> &mut Self {
        let descriptor = u64::from(map.as_raw_fd().cast_unsigned());
        self.emit_imm64(to, 2, descriptor)
    }

    fn emit_imm64(&mut self, to: Register, kind: u8, number: u64) -> &mut Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the two halves of the number"
        )]
        let (low, high) = (number as u32, (number >> 32) as u32);
        self.emit(0x18, to, Register(kind), 0, low.cast_signed());
        self.emit(0, R0, R0, 0, high.cast_signed());
        self
    }

    /// Exits with the value in `R0` if the comparison with a number holds.
    pub fn exit_if(&mut self, comparison: Comparison, left: Register, right: i32) -> &mut Self {
        self.to_end.push(self.code.len());
        self.emit(0x05 | comparison as u8, left, R0, 0, right);
        self
    }

    /// Exits with the value in `R0` if the comparison of two registers holds.
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

    /// Jumps forward to where the result is bound if the comparison with a number holds.
    pub fn jump_forward_if(
        &mut self,
        comparison: Comparison,
        left: Register,
        right: i32,
    ) -> ForwardJump {
        self.emit(0x05 | comparison as u8, left, R0, 0, right);
        ForwardJump(self.code.len() - 1)
    }

    /// Jumps forward to where the result is bound if the comparison of two registers holds.
    pub fn jump_forward_if_register(
        &mut self,
        comparison: Comparison,
        left: Register,
        right: Register,
    ) -> ForwardJump {
        self.emit(0x0d | comparison as u8, left, right, 0, 0);
        ForwardJump(self.code.len() - 1)
    }

    /// Jumps forward to where the result is bound.
    pub fn jump_forward(&mut self) -> ForwardJump {
        self.emit(0x05, R0, R0, 0, 0);
        ForwardJump(self.code.len() - 1)
    }

    /// Binds a forward jump to this instruction.
    ///
    /// # Panics
    /// Panics if it is too far.
    pub fn bind(&mut self, ForwardJump(jump): ForwardJump) -> &mut Self {
        let distance = i16::try_from(self.code.len() - jump - 1).expect("a short jump");
        self.code[jump] |= u64::from(distance.cast_unsigned()) << 16;
        self
    }

    /// Returns a label of this instruction, for [`Assembler::jump_back_if`].
    #[must_use]
    pub const fn label(&self) -> Label {
        Label(self.code.len())
    }

    /// Jumps back to a label if the comparison holds. The verifier must be able to prove that the loop ends.
    ///
    /// # Panics
    /// Panics if it is too far.
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

    /// `*to += from`, 64 bits, atomically.
    pub fn add_to(&mut self, to: Register, from: Register) -> &mut Self {
        self.emit(0xdb, to, from, 0, 0);
        self
    }

    /// Calls a helper.
    pub fn call(&mut self, helper: i32) -> &mut Self {
        self.emit(0x85, R0, R0, 0, helper);
        self
    }

    /// Completes the program and loads it as an XDP program with multi-buffer support.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    ///
    /// # Panics
    /// Panics if it is too long.
    pub fn load_xdp(&self) -> io::Result<OwnedFd> {
        load(
            &self.instructions(),
            BPF_PROG_TYPE_XDP,
            BPF_XDP,
            BPF_F_XDP_HAS_FRAGS,
        )
    }

    /// Completes the program and loads it as a traffic control classifier.
    ///
    /// # Errors
    /// Fails if the kernel refuses it.
    ///
    /// # Panics
    /// Panics if it is too long.
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
