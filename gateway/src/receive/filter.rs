//! Filters of received frames: classic BPF programs (bpf(4)), built from tests of header fields. Pure.

/// Length of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes in network byte order.
    Half,
    /// Four bytes in network byte order.
    Word,
}

/// Position of a field in the frame, from the start of the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Offset of the field.
    pub offset: u32,
    /// Length of the field.
    pub width: Width,
    /// Bits of the field that count.
    pub mask: u32,
}

impl Field {
    /// Returns a field of one byte.
    #[must_use]
    pub const fn byte(offset: u32) -> Self {
        Self::new(offset, Width::Byte)
    }

    /// Returns a field of two bytes.
    #[must_use]
    pub const fn half(offset: u32) -> Self {
        Self::new(offset, Width::Half)
    }

    /// Returns a field of four bytes.
    #[must_use]
    pub const fn word(offset: u32) -> Self {
        Self::new(offset, Width::Word)
    }

    /// Returns the field with some of its bits only.
    #[must_use]
    pub const fn masked(self, mask: u32) -> Self {
        Self { mask, ..self }
    }

    const fn new(offset: u32, width: Width) -> Self {
        Self {
            offset,
            width,
            mask: u32::MAX,
        }
    }
}

/// Condition for a frame: the field has one of the values. A frame that is too short for the field does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldTest {
    /// Field to be tested.
    pub field: Field,
    /// Values that pass.
    pub values: &'static [u32],
}

impl FieldTest {
    /// Returns the condition that the field has one of the values.
    #[must_use]
    pub const fn new(field: Field, values: &'static [u32]) -> Self {
        Self { field, values }
    }
}

/// Selection of received frames, made in the kernel.
pub trait FrameFilter {
    /// `EtherType` of the frames.
    const ETHERTYPE: u16;
    /// Conditions, all of which a frame meets.
    const TESTS: &'static [FieldTest];
}

/// Filter of ARP requests and replies for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug)]
pub struct ArpFilter;

impl FrameFilter for ArpFilter {
    const ETHERTYPE: u16 = 0x0806;
    const TESTS: &'static [FieldTest] = &[
        // Hardware type: Ethernet. Protocol type: IPv4. Lengths of their addresses.
        FieldTest::new(Field::half(14), &[1]),
        FieldTest::new(Field::half(16), &[0x0800]),
        FieldTest::new(Field::half(18), &[0x0604]),
        // Operation: request, reply.
        FieldTest::new(Field::half(20), &[1, 2]),
    ];
}

/// Filter of neighbour solicitations and advertisements (RFC 4861) that no router has forwarded.
#[derive(Clone, Copy, Debug)]
pub struct NeighbourDiscoveryFilter;

impl FrameFilter for NeighbourDiscoveryFilter {
    const ETHERTYPE: u16 = 0x86dd;
    const TESTS: &'static [FieldTest] = &[
        FieldTest::new(Field::byte(14).masked(0xf0), &[0x60]),
        // Next header: ICMPv6. Hop limit: 255.
        FieldTest::new(Field::half(20), &[0x3aff]),
        // Type: neighbour solicitation, neighbour advertisement. Code: 0.
        FieldTest::new(Field::half(54), &[0x8700, 0x8800]),
    ];
}

/// Filter of queries of multicast listener discovery (RFC 3810, section 5.1) with the option Router Alert.
#[derive(Clone, Copy, Debug)]
pub struct MldQueryFilter;

impl FrameFilter for MldQueryFilter {
    const ETHERTYPE: u16 = 0x86dd;
    const TESTS: &'static [FieldTest] = &[
        FieldTest::new(Field::byte(14).masked(0xf0), &[0x60]),
        // Next header: hop-by-hop options. Hop limit: 1.
        FieldTest::new(Field::half(20), &[0x0001]),
        // Behind options of eight bytes: ICMPv6. Type: query. Code: 0.
        FieldTest::new(Field::half(54), &[0x3a00]),
        FieldTest::new(Field::half(62), &[0x8200]),
    ];
}

/// Return value of a program that accepts a frame: more than the length of any.
const ACCEPT: u32 = 0x0004_0000;
/// Return value of a program that rejects a frame.
const REJECT: u32 = 0;

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Offset at which the kernel gives the kind of a frame (`SKF_AD_OFF + SKF_AD_PKTTYPE` of linux/filter.h).
const FRAME_KIND: u32 = metadata(4);
/// Offset at which the kernel gives the VLAN tag that it took out of a frame.
const VLAN_TAG: u32 = metadata(44);
/// Offset at which the kernel says if it took a VLAN tag out of a frame.
const HAS_VLAN_TAG: u32 = metadata(48);
/// Bits of a VLAN tag that hold the VLAN identifier.
const VLAN_IDENTIFIER: u32 = 0x0fff;

/// Kinds of frames that are for this host: to it, broadcast, multicast (packet(7)).
const KINDS_FOR_HOST: &[u32] = &[0, 1, 2];

const fn metadata(number: i32) -> u32 {
    (libc::SKF_AD_OFF + number).cast_unsigned()
}

/// Returns the program of a filter.
///
/// Besides the filter's tests, a frame must be for this host, and of the interface itself: a frame of a VLAN without
/// an interface of its own reaches packet sockets as one of the interface below, and so does a priority-tagged one,
/// which alone is accepted (IEEE 802.1Q).
pub(super) fn program(tests: &[FieldTest]) -> Vec<libc::sock_filter> {
    let mut program = Vec::new();
    require(
        &mut program,
        LOAD_WORD,
        FRAME_KIND,
        u32::MAX,
        KINDS_FOR_HOST,
    );
    program.extend([
        instruction(LOAD_WORD, HAS_VLAN_TAG, 0, 0),
        instruction(JUMP_IF_EQUAL, 0, 4, 0),
        instruction(LOAD_WORD, VLAN_TAG, 0, 0),
        instruction(AND, VLAN_IDENTIFIER, 0, 0),
        instruction(JUMP_IF_EQUAL, 0, 1, 0),
        instruction(RETURN, REJECT, 0, 0),
    ]);
    for FieldTest { field, values } in tests {
        let load = match field.width {
            Width::Byte => LOAD_BYTE,
            Width::Half => LOAD_HALF,
            Width::Word => LOAD_WORD,
        };
        require(&mut program, load, field.offset, field.mask, values);
    }
    program.push(instruction(RETURN, ACCEPT, 0, 0));
    program
}

/// Adds instructions that reject a frame unless a loaded value is one of the given ones.
fn require(
    program: &mut Vec<libc::sock_filter>,
    load: u32,
    offset: u32,
    mask: u32,
    values: &[u32],
) {
    program.push(instruction(load, offset, 0, 0));
    if mask != u32::MAX {
        program.push(instruction(AND, mask, 0, 0));
    }
    for (index, value) in values.iter().enumerate() {
        // Over the tests of the other values, and the rejection.
        let jump = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
        program.push(instruction(JUMP_IF_EQUAL, *value, jump, 0));
    }
    program.push(instruction(RETURN, REJECT, 0, 0));
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        // All codes are below 256.
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::receive::socket::attach_filter;

    /// Returns true if the kernel passes the frame. The filter is attached to a local socket, where frames are messages
    /// without VLAN tags and for this host.
    fn passes<F: FrameFilter>(frame: &[u8]) -> bool {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        attach_filter(&receiver, &program(F::TESTS)).unwrap();
        receiver.set_nonblocking(true).unwrap();
        sender.send(frame).unwrap();
        receiver.recv(&mut [0; 256]).is_ok()
    }

    fn changed(frame: &[u8], offset: usize, value: u8) -> Vec<u8> {
        let mut frame = frame.to_vec();
        frame[offset] = value;
        frame
    }

    #[test]
    fn arp_filter_passes_requests_and_replies_for_ipv4() {
        let mut frame = vec![0; 42];
        frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert!(passes::<ArpFilter>(&frame));
        assert!(passes::<ArpFilter>(&changed(&frame, 21, 2)));
        for (offset, value) in [(15, 6), (16, 9), (18, 8), (19, 16), (21, 3), (21, 0)] {
            let other = changed(&frame, offset, value);
            assert!(!passes::<ArpFilter>(&other), "{offset}: {value}");
        }
        assert!(!passes::<ArpFilter>(&frame[..21]));
    }

    #[test]
    fn neighbour_discovery_filter_passes_solicitations_and_advertisements() {
        let mut frame = vec![0; 78];
        frame[14] = 0x60;
        frame[20..22].copy_from_slice(&[58, 255]);
        frame[54] = 135;
        assert!(passes::<NeighbourDiscoveryFilter>(&frame));
        // The traffic class is not tested.
        let other = changed(&changed(&frame, 54, 136), 14, 0x6c);
        assert!(passes::<NeighbourDiscoveryFilter>(&other));
        for (offset, value) in [
            (14, 0x40),
            (20, 17),
            (21, 64),
            (54, 134),
            (54, 137),
            (55, 1),
        ] {
            let other = changed(&frame, offset, value);
            assert!(
                !passes::<NeighbourDiscoveryFilter>(&other),
                "{offset}: {value}"
            );
        }
    }
}
