//! The bare program over the flow table: the look-up of the gateway's fast path, written instruction by instruction.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use gateway_common::{
    V4,
    flow::{
        FlowEntry, NetworkProto, PlaceState, WAYS,
        hash::{HASH_FINISH, HashKeys},
        table::CHOICES,
    },
};
use tests::bpf::asm::{
    Assembler, Comparison, ForwardJump, MAP_LOOKUP_ELEM, Operation, R0, R1, R2, R4, R5, R6, R7, R8,
    R9, R10, Width,
};

use crate::wrapper::{XDP_PASS, begin_v4, redirect};

/// Offset of the index of a bucket on the stack.
const INDEX: i16 = -4;

/// Offset of a field of an entry.
macro_rules! offset {
    ($($field:tt)+) => {{
        const OFFSET: usize = std::mem::offset_of!(FlowEntry<V4>, $($field)+);
        const { assert!(OFFSET < 64) };
        #[expect(clippy::cast_possible_truncation, reason = "the assertion bounds the offset")]
        {
            OFFSET as i16
        }
    }};
}

/// Returns the bare program over a flow table with this many buckets.
///
/// # Errors
/// Fails if the kernel refuses it.
pub(crate) fn bare_flow_table(
    flows: BorrowedFd<'_>,
    buckets: u32,
    keys: &HashKeys,
    devices: BorrowedFd<'_>,
    network: u32,
) -> io::Result<OwnedFd> {
    let network_proto = NetworkProto::new(network, 6).to_bits();
    let mut code = begin_v4();
    hash(&mut code, keys, network_proto);
    // Both addresses, and both ports.
    code.load(Width::Double, R6, R7, 26)
        .load(Width::Word, R8, R7, 34);
    let mut found = Vec::new();
    for choice in 0..CHOICES {
        bucket_index(&mut code, choice, buckets);
        code.store(Width::Word, R10, INDEX, R5)
            .load_map(R1, flows)
            .alu_register(Operation::Move, R2, R10)
            .alu_immediate(Operation::Add, R2, INDEX.into())
            .call(MAP_LOOKUP_ELEM)
            .exit_if(Comparison::Equal, R0, 0);
        for way in 0..WAYS {
            found.push(compare(&mut code, way, network_proto));
        }
    }
    code.alu_immediate(Operation::Move, R0, XDP_PASS.cast_signed())
        .exit_if(Comparison::Equal, R0, XDP_PASS.cast_signed());
    for jump in found {
        code.bind(jump);
    }
    // Any fields serve as addresses of the frame.
    code.load(Width::Double, R5, R0, offset!(flow.destination))
        .store(Width::Double, R7, 0, R5)
        .load(Width::Word, R5, R0, offset!(flow.peer))
        .store(Width::Word, R7, 8, R5);
    redirect(&mut code, devices)
}

/// Sets `R9` to the hash of the packet's key.
fn hash(code: &mut Assembler, keys: &HashKeys, network_proto: u32) {
    let first = keys[0].wrapping_add(keys[1].wrapping_mul(network_proto.into()));
    code.load_imm64(R9, first);
    for (field, key) in [(34, keys[2]), (26, keys[3]), (30, keys[4])] {
        code.load(Width::Word, R5, R7, field)
            .load_imm64(R4, key)
            .alu_register(Operation::Multiply, R5, R4)
            .alu_register(Operation::Add, R9, R5);
    }
    code.alu_register(Operation::Move, R5, R9)
        .alu_immediate(Operation::ShiftRight, R5, 32)
        .alu_register(Operation::Xor, R9, R5)
        .load_imm64(R4, HASH_FINISH)
        .alu_register(Operation::Multiply, R9, R4);
}

/// Sets `R5` to the index of one of the two buckets of the hash in `R9`.
fn bucket_index(code: &mut Assembler, choice: u32, buckets: u32) {
    code.alu_register(Operation::Move, R5, R9);
    if choice > 0 {
        code.alu_immediate(Operation::ShiftRight, R5, 29)
            .alu_register(Operation::Xor, R5, R9)
            .alu_immediate(Operation::ShiftLeft, R5, 32);
    }
    code.alu_immediate(Operation::ShiftRight, R5, 32)
        .alu_immediate(Operation::Multiply, R5, buckets.cast_signed())
        .alu_immediate(Operation::ShiftRight, R5, 32);
}

/// Compares a place of the bucket at `R0` with the packet's key. Returns the jump that is taken if they are equal, with
/// the place in `R0`.
fn compare(code: &mut Assembler, way: u32, network_proto: u32) -> ForwardJump {
    let start = i16::try_from(way as usize * size_of::<FlowEntry<V4>>()).expect("in a bucket");
    let differs = [
        code.load(Width::Word, R4, R0, start + offset!(control))
            .alu_immediate(Operation::And, R4, 7)
            .jump_forward_if(Comparison::AtMost, R4, PlaceState::Tentative as i32),
        code.load(Width::Double, R4, R0, start + offset!(key.source))
            .jump_forward_if_register(Comparison::NotEqual, R4, R6),
        code.load(Width::Word, R4, R0, start + offset!(key.ports))
            .jump_forward_if_register(Comparison::NotEqual, R4, R8),
        code.load(Width::Word, R4, R0, start + offset!(key.network_proto))
            .jump_forward_if(Comparison::NotEqual, R4, network_proto.cast_signed()),
    ];
    code.alu_immediate(Operation::Add, R0, start.into());
    let found = code.jump_forward();
    for jump in differs {
        code.bind(jump);
    }
    found
}
