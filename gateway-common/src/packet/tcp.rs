//! TCP headers (RFC 9293).

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use crate::{
    byte_order::{Be16, Be32},
    packet::{PortPair, header},
};

/// The offset of the byte with the data offset, and of the byte with the flags behind it.
const DATA_OFFSET: usize = offset_of!(TcpHdr, ack_seq) + size_of::<u32>();

header! {
    /// The fixed part of a TCP header.
    Tcp, TcpHdr::LEN, {
        /// Both ports: the source's first.
        ports / set_ports: PortPair = offset_of!(TcpHdr, source);
        /// The first byte's sequence number.
        sequence / set_sequence: Be32 = offset_of!(TcpHdr, seq);
        /// The next byte expected.
        acknowledgement / set_acknowledgement: Be32 = offset_of!(TcpHdr, ack_seq);
        /// The header's length in words, in the upper four bits.
        data_offset / set_data_offset: u8 = DATA_OFFSET;
        /// See [`TcpFlags`].
        flags / set_flags: u8 = DATA_OFFSET + 1;
        /// The receive window.
        window / set_window: Be16 = offset_of!(TcpHdr, window);
        /// The checksum.
        checksum / set_checksum: Be16 = offset_of!(TcpHdr, check);
        /// The urgent pointer.
        urgent / set_urgent: Be16 = offset_of!(TcpHdr, urg_ptr);
    }
}

/// The flag bits of a TCP header.
#[derive(Clone, Copy, Debug)]
pub struct TcpFlags;

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 16;
}

impl Tcp {
    /// The header's length in bytes, options included.
    #[inline(always)]
    #[must_use]
    pub fn header_length(self) -> u16 {
        u16::from(self.data_offset() >> 4) * 4
    }

    /// Whether this opens a connection: a SYN, and none of ACK, RST and FIN.
    #[inline(always)]
    #[must_use]
    pub fn is_initial_syn(self) -> bool {
        const MASK: u8 = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN;
        self.flags() & MASK == TcpFlags::SYN
    }
}

header! {
    /// The start of a TCP option that has a length. The byte behind is the value of those that have
    /// one byte of it.
    TcpOption, 3, {
        /// Its kind.
        kind / set_kind: u8 = 0;
        /// Its length in bytes, kind and length included.
        length / set_length: u8 = 1;
        /// Its value's first byte.
        value / set_value: u8 = 2;
    }
}

header! {
    /// The option of the maximum segment size. Byte by byte: it may lie at an odd place.
    TcpMssOption, 4, {
        /// The upper half.
        high / set_high: u8 = 2;
        /// The lower half.
        low / set_low: u8 = 3;
    }
}

impl TcpMssOption {
    /// The size, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn size(self) -> u16 {
        u16::from_be_bytes([self.high(), self.low()])
    }
}
