//! The stack that the call chains of a BPF object use, as the verifier of Linux 6.1 counts it.
//!
//! Each function's frame is rounded up, and the frames of a call chain have 512 bytes together
//! (`check_max_stack_depth` in kernel/bpf/verifier.c). Later kernels round less, so they accept what this accepts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex,
    SymbolKind, read::elf::ElfFile64,
};

/// Maximum stack of a call chain, in bytes.
pub const MAX_STACK: u32 = 512;

/// Granularity of a frame, in bytes.
const FRAME_GRANULARITY: u32 = 32;

const INSTRUCTION_LEN: u64 = 8;

// Instruction classes and codes: linux/bpf.h, RFC 9669.
const CLASS_MASK: u8 = 0x07;
const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const LOAD_IMMEDIATE_64: u8 = 0x18;
const CALL: u8 = 0x85;
const MOVE_REGISTER_64: u8 = 0xbf;
const ADD_IMMEDIATE_64: u8 = 0x07;
const FRAME_POINTER: u8 = 10;
/// Source register of a call of a function of the object.
const PSEUDO_CALL: u8 = 1;
/// Source register of a load of such a function's address, which is called back.
const PSEUDO_FUNC: u8 = 4;

/// Call chain with its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallChain {
    /// Functions from the entry point on, each with the bytes that it uses.
    pub frames: Vec<(String, u32)>,
}

impl CallChain {
    /// Returns the stack that the chain uses, in bytes.
    #[must_use]
    pub fn stack(&self) -> u32 {
        let frames = self.frames.iter();
        frames
            .map(|(_, frame)| frame.max(&1).next_multiple_of(FRAME_GRANULARITY))
            .sum()
    }
}

/// Function of the object.
#[derive(Debug)]
struct Function {
    name: String,
    section: SectionIndex,
    start: u64,
    end: u64,
}

#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let &[code, registers, o0, o1, i0, i1, i2, i3] = bytes else {
            return None;
        };
        Some(Self {
            code,
            destination: registers & 0x0f,
            source: registers >> 4,
            offset: i16::from_le_bytes([o0, o1]),
            immediate: i32::from_le_bytes([i0, i1, i2, i3]),
        })
    }

    /// Returns the depth below the frame pointer that the instruction reaches by itself.
    fn depth(self) -> u32 {
        let base = match self.code & CLASS_MASK {
            CLASS_LDX => self.source,
            CLASS_ST | CLASS_STX => self.destination,
            _ => return 0,
        };
        if base == FRAME_POINTER {
            u32::from(self.offset.min(0).unsigned_abs())
        } else {
            0
        }
    }
}

/// Returns the call chain that uses the most stack.
///
/// # Errors
/// When the object can't be parsed, or a function calls itself.
pub fn deepest_call_chain(object: &[u8]) -> Result<CallChain> {
    let elf = ElfFile64::<Endianness>::parse(object)?;
    let functions = functions(&elf);
    let mut frames = BTreeMap::new();
    for (index, function) in functions.iter().enumerate() {
        frames.insert(index, analyse(&elf, &functions, function)?);
    }
    let mut deepest = CallChain::default();
    for index in 0..functions.len() {
        let chain = deepest_from(index, &functions, &frames, &mut BTreeSet::new())?;
        if chain.stack() > deepest.stack() {
            deepest = chain;
        }
    }
    Ok(deepest)
}

fn functions(elf: &ElfFile64<'_>) -> Vec<Function> {
    let symbols = elf.symbols();
    let functions = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    functions
        .filter_map(|symbol| {
            Some(Function {
                name: symbol.name().ok()?.to_owned(),
                section: symbol.section_index()?,
                start: symbol.address(),
                end: symbol.address() + symbol.size(),
            })
        })
        .collect()
}

/// Returns the frame of a function in bytes, and the functions that it calls.
fn analyse(
    elf: &ElfFile64<'_>,
    functions: &[Function],
    function: &Function,
) -> Result<(u32, BTreeSet<usize>)> {
    let section = elf.section_by_index(function.section)?;
    let code = section.data()?;
    let relocations: BTreeMap<u64, RelocationTarget> = section
        .relocations()
        .map(|(offset, relocation)| (offset, relocation.target()))
        .collect();
    let (mut frame, mut callees) = (0, BTreeSet::new());
    // The instruction before copied the frame pointer into this register.
    let mut copied_to = None;
    let mut at = function.start;
    while at < function.end {
        let bytes = usize::try_from(at)
            .ok()
            .and_then(|from| code.get(from..from + 8));
        let instruction = bytes
            .and_then(Instruction::decode)
            .with_context(|| format!("{} ends in an instruction", function.name))?;
        frame = frame.max(instruction.depth());
        if instruction.code == ADD_IMMEDIATE_64 && copied_to == Some(instruction.destination) {
            frame = frame.max(instruction.immediate.min(0).unsigned_abs());
        }
        copied_to = (instruction.code == MOVE_REGISTER_64 && instruction.source == FRAME_POINTER)
            .then_some(instruction.destination);
        let is_call = instruction.code == CALL && instruction.source == PSEUDO_CALL;
        let target = relocations.get(&at).copied();
        let is_callback = instruction.code == LOAD_IMMEDIATE_64
            && (instruction.source == PSEUDO_FUNC || target.is_some());
        if is_call || is_callback {
            match callee(elf, functions, function, at, instruction, target) {
                Some(index) => {
                    callees.insert(index);
                }
                // A relocation of a load that is no function is a map.
                None if is_callback => {}
                None => bail!("{} calls an unknown function at {at}", function.name),
            }
        }
        at += if instruction.code == LOAD_IMMEDIATE_64 {
            2 * INSTRUCTION_LEN
        } else {
            INSTRUCTION_LEN
        };
    }
    Ok((frame, callees))
}

/// Returns the index of the function that an instruction refers to.
fn callee(
    elf: &ElfFile64<'_>,
    functions: &[Function],
    caller: &Function,
    at: u64,
    instruction: Instruction,
    target: Option<RelocationTarget>,
) -> Option<usize> {
    let is_call = instruction.code == CALL;
    let relative = i64::from(instruction.immediate);
    let (section, address) = match target {
        Some(RelocationTarget::Symbol(index)) => {
            let symbol = elf.symbol_by_index(index).ok()?;
            let section = symbol.section_index()?;
            let is_section = symbol.kind() == SymbolKind::Section;
            // The immediate of a call counts instructions from the next one, that of a load counts bytes.
            let offset = match (is_section, is_call) {
                (true, true) => (relative + 1) * 8,
                (true, false) => relative,
                (false, _) => 0,
            };
            (section, symbol.address().checked_add_signed(offset)?)
        }
        _ if is_call => {
            let next = at + INSTRUCTION_LEN;
            (caller.section, next.checked_add_signed(relative * 8)?)
        }
        _ => return None,
    };
    functions
        .iter()
        .position(|function| function.section == section && function.start == address)
}

/// Returns the chain from a function on that uses the most stack.
fn deepest_from(
    index: usize,
    functions: &[Function],
    frames: &BTreeMap<usize, (u32, BTreeSet<usize>)>,
    callers: &mut BTreeSet<usize>,
) -> Result<CallChain> {
    let (Some(function), Some((frame, callees))) = (functions.get(index), frames.get(&index))
    else {
        bail!("the object has no function {index}");
    };
    if !callers.insert(index) {
        bail!("{} calls itself", function.name);
    }
    let mut below = CallChain::default();
    for callee in callees {
        let chain = deepest_from(*callee, functions, frames, callers)?;
        if chain.stack() > below.stack() {
            below = chain;
        }
    }
    callers.remove(&index);
    let mut chain = CallChain {
        frames: vec![(function.name.clone(), *frame)],
    };
    chain.frames.append(&mut below.frames);
    Ok(chain)
}
