//! Offsets of fields in the running kernel's structures, from its type information (BTF).
//!
//! The format is documented in the kernel (Documentation/bpf/btf.rst): a header, the types one after the other, and the
//! strings that they refer to. aya does not give access to the members of types.

use anyhow::{Context as _, Result, bail};

/// File that has the kernel's types.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Length of the part that all types have.
const TYPE_LEN: usize = 12;
/// Length of a member of a structure or union.
const MEMBER_LEN: usize = 12;

/// Number of types that are passed through on the way to a structure: type definitions and qualifiers.
const MAX_INDIRECTIONS: usize = 8;

/// Types of a kernel.
#[derive(Debug)]
pub struct KernelTypes {
    data: Vec<u8>,
    /// Positions of the types in `data`, by number. Number 0 is `void`.
    positions: Vec<usize>,
    strings: usize,
}

impl KernelTypes {
    /// Reads the types of the running kernel.
    ///
    /// # Errors
    /// Fails if the kernel does not have them, or in another format.
    pub fn running() -> Result<Self> {
        let data = std::fs::read(KERNEL_TYPES).with_context(|| {
            format!("could not read {KERNEL_TYPES}: run a kernel with CONFIG_DEBUG_INFO_BTF")
        })?;
        Self::parse(data)
    }

    fn parse(data: Vec<u8>) -> Result<Self> {
        let word = |at: usize| word_at(&data, at).context("truncated type information");
        if word(0)? & 0xffff != u32::from(MAGIC) {
            bail!("the kernel's type information has an unknown format");
        }
        let header_len = word(4)? as usize;
        let (types, types_len) = (header_len + word(8)? as usize, word(12)? as usize);
        let strings = header_len + word(16)? as usize;
        let mut positions = vec![0];
        let mut at = types;
        while at < types + types_len {
            positions.push(at);
            at += TYPE_LEN + data_len(word(at + 4)?)?;
        }
        Ok(Self {
            data,
            positions,
            strings,
        })
    }

    /// Returns the offset of a field, in bytes. `path` names the structure, and a field in each structure after it:
    /// `["net", "ns", "inum"]` is `inum` in the field `ns` of `struct net`.
    ///
    /// # Errors
    /// Fails if there is no such structure or field.
    pub fn offset(&self, path: [&str; 3]) -> Result<u32> {
        let [structure, ..] = path;
        let missing = || format!("the kernel has no field {}", path.join("."));
        let mut number = self.structure(structure).with_context(missing)?;
        let mut offset = 0;
        for field in path[1..].iter().filter(|field| !field.is_empty()) {
            let (field_offset, field_type) = self.member(number, field).with_context(missing)?;
            offset += field_offset;
            number = field_type;
        }
        Ok(offset)
    }

    /// Returns the number of the structure with this name.
    fn structure(&self, name: &str) -> Option<u32> {
        let numbers = 1..u32::try_from(self.positions.len()).ok()?;
        let mut structures = numbers.filter(|number| self.kind(*number) == Some(KIND_STRUCT));
        structures.find(|number| self.name(*number) == Some(name.as_bytes()))
    }

    /// Returns the offset and the type of a member, which may be in a structure or union without a name.
    fn member(&self, number: u32, name: &str) -> Option<(u32, u32)> {
        let number = self.resolve(number)?;
        let at = self.position(number)?;
        let info = word_at(&self.data, at + 4)?;
        if ![KIND_STRUCT, KIND_UNION].contains(&kind_of(info)) {
            return None;
        }
        let has_bit_fields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let at = at + TYPE_LEN + index * MEMBER_LEN;
            let bits = word_at(&self.data, at + 8)?;
            let bits = if has_bit_fields {
                bits & 0xff_ffff
            } else {
                bits
            };
            let (offset, member_type) = (bits / 8, word_at(&self.data, at + 4)?);
            match self.string(word_at(&self.data, at)?)? {
                found if found == name.as_bytes() => return Some((offset, member_type)),
                [] => {
                    if let Some((inner, inner_type)) = self.member(member_type, name) {
                        return Some((offset + inner, inner_type));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Returns the type behind type definitions and qualifiers.
    fn resolve(&self, mut number: u32) -> Option<u32> {
        for _ in 0..MAX_INDIRECTIONS {
            match self.kind(number)? {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG => {
                    number = word_at(&self.data, self.position(number)? + 8)?;
                }
                _ => return Some(number),
            }
        }
        None
    }

    fn position(&self, number: u32) -> Option<usize> {
        let found = self.positions.get(number as usize).copied();
        found.filter(|_| number != 0)
    }

    fn kind(&self, number: u32) -> Option<u32> {
        word_at(&self.data, self.position(number)? + 4).map(kind_of)
    }

    fn name(&self, number: u32) -> Option<&[u8]> {
        self.string(word_at(&self.data, self.position(number)?)?)
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.data.get(self.strings + offset as usize..)?;
        rest.split(|byte| *byte == 0).next()
    }
}

fn word_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

const fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Returns the length of the data that follows the common part of a type.
fn data_len(info: u32) -> Result<usize> {
    let count = (info & 0xffff) as usize;
    Ok(match kind_of(info) {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * MEMBER_LEN,
        KIND_ENUM | KIND_FUNC_PROTO => count * 8,
        // Pointers, names and qualifiers.
        2 | 7..=12 | 16 | 18 => 0,
        kind => bail!("the kernel's type information has types of the unknown kind {kind}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds type information from words of types, and strings.
    fn information(types: &[u32], strings: &str) -> Vec<u8> {
        let types_len = u32::try_from(types.len() * 4).unwrap();
        let strings_len = u32::try_from(strings.len()).unwrap();
        let header = [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            types_len,
            types_len,
            strings_len,
        ];
        let words = header
            .iter()
            .chain(types)
            .flat_map(|word| word.to_ne_bytes());
        words.chain(strings.bytes()).collect()
    }

    #[test]
    fn offsets_lead_through_unnamed_unions_and_type_definitions() {
        let strings = "\0outer\0inner\0alias\0number\0";
        let (outer, inner, alias, number) = (1, 7, 13, 19);
        let info = |kind: u32, members: u32| kind << 24 | members;
        let types = [
            // 1: the integer
            [0, info(KIND_INT, 0), 4].to_vec(),
            vec![32],
            // 2: struct inner { int; int number; }
            vec![inner, info(KIND_STRUCT, 2), 8],
            vec![0, 1, 0],
            vec![number, 1, 32],
            // 3: typedef struct inner alias
            vec![alias, info(KIND_TYPEDEF, 0), 2],
            // 4: union { alias inner; }
            vec![0, info(KIND_UNION, 1), 8],
            vec![inner, 3, 0],
            // 5: struct outer { int; union; }
            vec![outer, info(KIND_STRUCT, 2), 16],
            vec![number, 1, 0],
            vec![0, 4, 64],
        ]
        .concat();
        let types = KernelTypes::parse(information(&types, strings)).unwrap();
        assert_eq!(types.offset(["outer", "inner", "number"]).unwrap(), 12);
        assert_eq!(types.offset(["outer", "inner", ""]).unwrap(), 8);
        let error = types.offset(["outer", "alias", ""]).unwrap_err();
        assert!(error.to_string().contains("outer.alias"), "{error}");
    }

    #[test]
    fn damaged_type_information_is_refused() {
        assert!(KernelTypes::parse(Vec::new()).is_err());
        assert!(KernelTypes::parse(information(&[0, 31 << 24, 0], "\0")).is_err());
        let mut truncated = information(&[0, KIND_STRUCT << 24 | 9, 0], "\0");
        truncated.truncate(30);
        assert!(KernelTypes::parse(truncated).is_err());
    }
}
