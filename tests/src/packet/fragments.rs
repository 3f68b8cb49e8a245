//! Splitting a packet into fragments, and reassembly.

use super::{Content, Packet, Transport};

impl Packet {
    /// Splits the packet into fragments of at most `max_len` bytes of payload, with this identification.
    ///
    /// # Panics
    /// Panics if it is no IP packet.
    #[must_use]
    pub fn split_into_fragments(&self, max_len: usize, id: u32) -> Vec<Self> {
        let frame = self.bytes(false);
        let (head, protocol) = match &self.content {
            Content::Ipv4(_) => (34, frame[23]),
            Content::Ipv6(_) => (54, frame[20]),
            _ => panic!("no IP"),
        };
        let body = &frame[head..];
        let pieces: Vec<&[u8]> = body.chunks(max_len & !7).collect();
        let last = pieces.len() - 1;
        let mut offset = 0;
        let mut fragments = Vec::new();
        for (place, piece) in pieces.into_iter().enumerate() {
            let more = u16::from(place < last);
            let mut fragment = self.clone();
            let position = u16::try_from(offset).expect("a packet");
            match &mut fragment.content {
                Content::Ipv4(ip) => {
                    ip.id = u16::try_from(id).expect("16 bits");
                    ip.fragment = (more << 13) | (position / 8);
                    ip.transport = Transport::Other(protocol, piece.to_vec());
                }
                Content::Ipv6(ip) => {
                    let mut header = vec![0, 0];
                    header.extend((position | more).to_be_bytes());
                    header.extend(id.to_be_bytes());
                    ip.extensions = vec![(44, header)];
                    ip.transport = Transport::Other(protocol, piece.to_vec());
                }
                _ => {}
            }
            offset += piece.len();
            fragments.push(fragment);
        }
        fragments
    }
}

/// The fields of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification.
    pub id: u32,
    /// Offset in bytes.
    pub offset: u16,
    /// True if more fragments follow.
    pub more: bool,
    /// Protocol of the datagram.
    pub protocol: u8,
    /// Payload of the fragment.
    pub bytes: Vec<u8>,
}

/// Returns the fragment in a packet.
///
/// # Panics
/// Panics if it is none.
#[must_use]
pub fn fragment_of(packet: &Packet) -> Fragment {
    match &packet.content {
        Content::Ipv4(ip) => match &ip.transport {
            Transport::Other(protocol, bytes) => Fragment {
                id: ip.id.into(),
                offset: (ip.fragment & 0x1fff) * 8,
                more: ip.fragment & 0x2000 != 0,
                protocol: *protocol,
                bytes: bytes.clone(),
            },
            other => panic!("no fragment: {other:?}"),
        },
        Content::Ipv6(ip) => match &ip.transport {
            Transport::Other(44, bytes) => {
                let position = u16::from_be_bytes([bytes[2], bytes[3]]);
                Fragment {
                    id: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
                    offset: position & !7,
                    more: position & 1 != 0,
                    protocol: bytes[0],
                    bytes: bytes[8..].to_vec(),
                }
            }
            other => panic!("no fragment: {other:?}"),
        },
        _ => panic!("no IP:\n{packet}"),
    }
}

/// Reassembles fragments that are in order, and parses the packet.
///
/// # Panics
/// Panics if there is a gap, or a checksum is wrong.
#[must_use]
pub fn reassemble(fragments: &[Packet]) -> Packet {
    let mut whole = Vec::new();
    let mut protocol = 0;
    for fragment in fragments {
        let piece = fragment_of(fragment);
        assert_eq!(usize::from(piece.offset), whole.len(), "a gap");
        whole.extend(piece.bytes);
        protocol = piece.protocol;
    }
    let mut packet = fragments[0].clone();
    match &mut packet.content {
        Content::Ipv4(ip) => {
            ip.fragment = 0;
            ip.transport = Transport::Other(protocol, whole);
        }
        Content::Ipv6(ip) => {
            ip.transport = Transport::Other(protocol, whole);
        }
        _ => {}
    }
    Packet::parse(&packet.bytes(false)).expect("a packet whose checksums are right")
}
