//! Header views: typed access to packet bytes whose bounds were checked once.
//!
//! [`PacketSlice::at`] checks that a header lies within the linear data. The view's getters and setters then access
//! fields without another check, since the compiler proves that each field lies within the header.
//!
//! ```text
//!   PacketBuffer ──► PacketSlice::at(offset, length) ──► Ipv4, Tcp, … ──► fields
//!                    one bounds check                    none
//! ```
//!
//! Offsets come from the header structs of `network-types`. Fields are loaded and stored whole, not byte by byte,
//! which saves a tenth of the cost of an established packet.

mod arp;
mod buffer;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod ndp;
mod ports;
mod slice;
mod tcp;
mod udp;

pub use arp::Arp;
pub use buffer::PacketBuffer;
pub use ethernet::{EtherType, Ethernet, Mac, PackedMac, VlanTag};
pub use icmp::{EmbeddedL4Header, EmbeddedTcpChecksum, Icmp, IcmpErrorType};
pub use ipv4::Ipv4;
pub use ipv6::{ExtensionHeader, FragmentHeader, Ipv6};
pub use ndp::{LinkLayerOption, NeighbourMessage, NeighbourOption};
pub use ports::PortPair;
pub use slice::{LinearData, PacketSlice};
pub use tcp::{Tcp, TcpFlags, TcpMssOption, TcpOption};
pub use udp::Udp;

/// The IP protocol numbers that the data path knows.
pub mod protocol {
    use network_types::ip::IpProto;

    /// ICMP.
    pub const ICMP: u8 = IpProto::Icmp as u8;
    /// TCP.
    pub const TCP: u8 = IpProto::Tcp as u8;
    /// UDP.
    pub const UDP: u8 = IpProto::Udp as u8;
    /// ICMPv6.
    pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    /// IPv6 routing header.
    pub const ROUTING: u8 = IpProto::Ipv6Route as u8;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
}

/// Defines a header view: its name, its length, and its fields with their offsets.
macro_rules! header {
    (
        $(#[$meta:meta])*
        $name:ident, $length:expr, {
            $($(#[$field_meta:meta])* $get:ident / $set:ident : $type:ty = $offset:expr;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name($crate::packet::PacketSlice);

        impl $name {
            /// Length of the header's fixed part, in bytes.
            pub const LEN: usize = $length;

            /// Length of the header's fixed part, in the type of length fields.
            #[expect(clippy::cast_possible_truncation, reason = "headers are short")]
            pub const LEN_U16: u16 = {
                assert!(Self::LEN <= u16::MAX as usize);
                Self::LEN as u16
            };

            /// Returns the header at `offset`, or nothing if the linear data ends before.
            #[inline(always)]
            pub fn at<B: $crate::packet::PacketBuffer>(buffer: &B, offset: usize) -> Option<Self> {
                $crate::packet::PacketSlice::at(buffer, offset, Self::LEN).map(Self)
            }

            /// Returns the header at `offset` of bytes that were bounds-checked, or nothing if they end before.
            #[inline(always)]
            #[must_use]
            pub fn within(linear: $crate::packet::LinearData, offset: usize) -> Option<Self> {
                linear.slice(offset, Self::LEN).map(Self)
            }

            $(
                $(#[$field_meta])*
                #[inline(always)]
                #[must_use]
                pub fn $get(self) -> $type {
                    const { assert!($crate::packet::slice::field_fits($offset, size_of::<$type>(), $length)) };
                    // SAFETY: within the header, by the assertion above.
                    unsafe { self.0.load($offset) }
                }

                #[doc = concat!("Stores what [`", stringify!($get), "`](Self::", stringify!($get), ") loads.")]
                #[inline(always)]
                pub fn $set(self, value: $type) {
                    const { assert!($crate::packet::slice::field_fits($offset, size_of::<$type>(), $length)) };
                    // SAFETY: within the header, by the assertion above.
                    unsafe { self.0.store($offset, value) }
                }
            )*
        }
    };
}
use header;
