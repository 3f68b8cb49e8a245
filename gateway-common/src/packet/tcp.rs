//! TCP headers (RFC 9293).

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use crate::{
    byte_order::{Be16, Be32},
    packet::{PortPair, header},
};

/// Offset of the byte with the data offset. The byte with the flags follows.
const DATA_OFFSET: usize = offset_of!(TcpHdr, ack_seq) + size_of::<u32>();

header! {
    /// The fixed part of a TCP header.
    Tcp, TcpHdr::LEN, {
        /// Source and destination port.
        ports / set_ports: PortPair = offset_of!(TcpHdr, source);
        /// Sequence number of the first byte.
        sequence / set_sequence: Be32 = offset_of!(TcpHdr, seq);
        /// Acknowledgement number: the next byte that the sender expects.
        acknowledgement / set_acknowledgement: Be32 = offset_of!(TcpHdr, ack_seq);
        /// Length of the header in 32-bit words, in the upper four bits.
        data_offset / set_data_offset: u8 = DATA_OFFSET;
        /// See [`TcpFlags`].
        flags / set_flags: u8 = DATA_OFFSET + 1;
        /// Receive window, before window scaling.
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
    /// The sender has no more data.
    pub const FIN: u8 = 1;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 16;
}

impl Tcp {
    /// Returns the length of the header in bytes, including options.
    #[inline(always)]
    #[must_use]
    pub fn header_length(self) -> u16 {
        u16::from(self.data_offset() >> 4) * 4
    }

    /// Returns true if the segment opens a connection: it has SYN and none of ACK, RST and FIN.
    #[inline(always)]
    #[must_use]
    pub fn is_initial_syn(self) -> bool {
        const MASK: u8 = TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN;
        self.flags() & MASK == TcpFlags::SYN
    }
}

header! {
    /// The start of a TCP option that has a length. The third byte is the value of options with a one-byte value.
    TcpOption, 3, {
        /// Option kind.
        kind / set_kind: u8 = 0;
        /// Option length in bytes, including kind and length.
        length / set_length: u8 = 1;
        /// First byte of the value.
        value / set_value: u8 = 2;
    }
}

header! {
    /// The maximum segment size option. It is accessed byte by byte, since it may start at an odd offset.
    TcpMssOption, 4, {
        /// Upper byte of the size.
        high / set_high: u8 = 2;
        /// Lower byte of the size.
        low / set_low: u8 = 3;
    }
}

impl TcpMssOption {
    /// Returns the maximum segment size in bytes.
    #[inline(always)]
    #[must_use]
    pub fn size(self) -> u16 {
        u16::from_be_bytes([self.high(), self.low()])
    }
}
