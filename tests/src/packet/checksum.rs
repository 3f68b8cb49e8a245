//! The Internet checksum (RFC 1071), and the pseudo header that TCP, UDP and ICMPv6 add to it.

/// Adds bytes to an unfolded Internet checksum (RFC 1071).
pub(super) fn add_to_checksum(bytes: &[u8], sum: u64) -> u64 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([pair[0], low]))
    })
}

pub(super) fn fold_checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(0)
}
