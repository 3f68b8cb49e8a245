//! Stage 2: what kind of packet it is. Network headers are bounds-checked here, once.
//!
//! Guarantees to the stages behind it: the frame was sent to our own hardware address (ARP: or to
//! all; neighbour discovery: or to a group), an IPv4 header has no options, the lengths cover the
//! headers and lie within the frame. A packet that fails one of these is dropped if it is for an
//! address of ours or the attachment is isolated; otherwise it is the host's.

use core::marker::PhantomData;

use crate::{
    Be32, DropReason, Environment, Family, Step, Turn, V4, V6,
    family::Header as _,
    maps::{Address, AddressKey, Attachment, NO_LINK},
    packet::{Arp, EtherType, Ethernet, Extension, FragmentHeader, Ipv4, Ipv6, protocol},
};

/// Where the network header starts.
pub(super) const L3: usize = Ethernet::LENGTH;

/// Extension headers that are walked at the most.
const MOST_EXTENSIONS: usize = 4;
/// Their longest.
const MOST_WALKED: u16 = 4 * 256 * 8;

/// A frame that can concern us.
pub(super) enum Frame {
    /// ARP.
    Arp(Arp),
    /// IP of either version.
    Ip,
}

/// A place in the frame that is not the same in all. The kernel's verifier loses what it knew of a
/// number that the compiler keeps in memory, so it is bounded once more where it is used: by more
/// than any header is behind.
#[derive(Clone, Copy)]
pub(super) struct Place(u32);

impl Place {
    const MASK: u32 = 0x3fff;

    /// So many bytes from the start.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the mask")]
    pub(super) const fn new(offset: usize) -> Self {
        Self(offset as u32 & Self::MASK)
    }

    /// The offset in bytes.
    #[inline(always)]
    pub(super) const fn get(self) -> usize {
        (self.0 & Self::MASK) as usize
    }

    /// Returns the place so many bytes before.
    #[inline(always)]
    pub(super) const fn minus(self, less: usize) -> Self {
        Self::new(self.get().wrapping_sub(less))
    }

    /// So many bytes further.
    #[inline(always)]
    pub(super) const fn plus(self, more: usize) -> Self {
        Self::new(self.get() + more)
    }
}

/// An IP packet that can concern us.
#[derive(Clone, Copy)]
pub(super) struct Packet<F: Family> {
    family: PhantomData<F>,
    /// What is behind the header, and behind extension headers and a fragment header.
    pub(super) protocol: u8,
    /// Where that starts.
    pub(super) l4: Place,
    /// The IP packet's length in bytes.
    pub(super) length: u16,
    /// How much of that is behind the headers.
    pub(super) payload: u16,
    pub(super) fragment: Fragment,
    /// The frame was sent to a group of stations: only neighbour discovery may be.
    pub(super) to_group: bool,
}

/// A packet's place within a larger one.
#[derive(Clone, Copy, Default)]
pub(super) struct Fragment {
    /// The larger packet's identification.
    pub(super) id: Be32,
    /// The offset in bytes, with 1 added while more fragments follow; 0 for a whole packet.
    pub(super) position: u16,
}

impl Fragment {
    /// A whole packet.
    pub(super) const NONE: Self = Self {
        id: Be32::new(0),
        position: 0,
    };

    /// Whether the packet is a part of a larger one.
    #[inline(always)]
    pub(super) const fn is_part(self) -> bool {
        self.position != 0
    }

    /// Whether it is a part that does not have the transport header.
    #[inline(always)]
    pub(super) const fn is_later(self) -> bool {
        self.position > 1
    }

    /// Whether it is the part that has the transport header, of more.
    #[inline(always)]
    pub(super) const fn is_first(self) -> bool {
        self.position == 1
    }
}

/// What an address is of ours. One that is only tentative is none yet (RFC 4862, section 5.4; RFC
/// 5227, section 2.1).
#[inline(always)]
pub(super) fn own_address<F: Family, E: Environment>(
    env: &E,
    network: u32,
    address: F::Address,
) -> Option<Address> {
    let address = F::widen(address);
    // Configuration has IPv4 addresses mapped into IPv6. An IPv6 packet that carries one means none of them.
    F::narrow(address)?;
    let key = AddressKey { network, address };
    env.address(&key)
        .filter(|address| address.kind != Address::TENTATIVE)
}

/// What becomes of a packet that is for none of our addresses.
#[inline(always)]
pub(super) fn not_ours(attachment: &Attachment, reason: DropReason) -> Turn {
    if attachment.isolated() {
        Turn::drop(reason, NO_LINK)
    } else {
        Turn::PASS
    }
}

/// What becomes of a packet that we can't handle, once it is known for whom it is.
#[inline(always)]
pub(super) fn refuse<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    packet: &Packet<F>,
    reason: DropReason,
) -> Turn {
    match packet.header(env) {
        Ok(header) => not_handled::<F, E>(env, attachment, header, reason),
        Err(turn) => turn,
    }
}

impl<F: Family> Packet<F> {
    /// Its header. Windows are taken where they are used, not kept: the compiler takes values in
    /// memory apart, and the verifier lets no pointer be.
    #[inline(always)]
    pub(super) fn header<E: Environment>(&self, env: &E) -> Step<F::Header> {
        header::<F, E>(env)
    }
}

/// The packet's header.
#[inline(always)]
pub(super) fn header<F: Family, E: Environment>(env: &E) -> Step<F::Header> {
    F::Header::at(env, L3).ok_or(Turn::drop(DropReason::Truncated, NO_LINK))
}

#[inline(always)]
fn not_handled<F: Family, E: Environment>(
    env: &E,
    attachment: &Attachment,
    header: F::Header,
    reason: DropReason,
) -> Turn {
    match own_address::<F, E>(env, attachment.network, header.destination()) {
        Some(address) => Turn::drop(reason, address.link),
        None => not_ours(attachment, reason),
    }
}

/// Tells what the frame is.
#[inline(always)]
pub(super) fn frame<E: Environment>(env: &E, attachment: &Attachment) -> Step<Frame> {
    let truncated = || not_ours(attachment, DropReason::Truncated);
    let ethernet = Ethernet::at(env, 0).ok_or_else(truncated)?;
    match ethernet.ether_type() {
        EtherType::IPV4 | EtherType::IPV6 => Ok(Frame::Ip),
        EtherType::ARP => Arp::at(env, L3).map(Frame::Arp).ok_or_else(truncated),
        EtherType::VLAN | EtherType::SERVICE_VLAN => {
            Err(not_ours(attachment, DropReason::VlanTagged))
        }
        _ => Err(not_ours(attachment, DropReason::EtherTypeUnsupported)),
    }
}

/// Returns whether both addresses are of the family that they came in. IPv4-mapped addresses are of IPv4, so
/// no packet of IPv6 may carry one (RFC 4291, section 2.5.5.2; RFC 6890, table 20), and tables that hold
/// addresses of both families must not be searched for it.
#[inline(always)]
pub(super) fn is_on_wire<F: Family>(source: F::Address, destination: F::Address) -> bool {
    F::narrow(F::widen(source)).is_some() && F::narrow(F::widen(destination)).is_some()
}

/// Whether the frame is for our station.
#[inline(always)]
fn is_for_us<E: Environment>(env: &E, attachment: &Attachment) -> bool {
    Ethernet::at(env, 0).is_some_and(|ethernet| ethernet.is_for(attachment.mac))
}

/// The IPv4 packet.
#[inline(always)]
pub(super) fn ipv4<E: Environment>(env: &E, attachment: &Attachment) -> Step<Packet<V4>> {
    let header = Ipv4::at(env, L3).ok_or(not_ours(attachment, DropReason::Truncated))?;
    if !is_for_us(env, attachment) {
        return Err(not_ours(attachment, DropReason::DestinationMac));
    }
    let refuse = |reason| Err(not_handled::<V4, E>(env, attachment, header, reason));
    if header.version_ihl() != Ipv4::PLAIN {
        let options = header.version_ihl() > Ipv4::PLAIN && header.version_ihl() <= 0x4f;
        return refuse(if options {
            DropReason::Ipv4Options
        } else {
            DropReason::Malformed
        });
    }
    let length = header.total_length().get();
    if length < Ipv4::OCTETS {
        return refuse(DropReason::Malformed);
    }
    if !env.holds(L3 + usize::from(length)) {
        return refuse(DropReason::Truncated);
    }
    Ok(Packet {
        family: PhantomData,
        protocol: header.protocol(),
        l4: Place::new(L3 + Ipv4::LENGTH),
        length,
        payload: length - Ipv4::OCTETS,
        fragment: Fragment {
            id: Be32::new(u32::from(header.identification().get())),
            position: header.position(),
        },
        to_group: false,
    })
}

/// The IPv6 packet.
#[inline(always)]
pub(super) fn ipv6<E: Environment>(env: &mut E, attachment: &Attachment) -> Step<Packet<V6>> {
    let header = Ipv6::at(env, L3).ok_or(not_ours(attachment, DropReason::Truncated))?;
    let to_group = !is_for_us(env, attachment);
    if to_group && !Ethernet::at(env, 0).is_some_and(|e| e.destination().is_ipv6_group()) {
        return Err(not_ours(attachment, DropReason::DestinationMac));
    }
    if !is_on_wire::<V6>(header.source(), header.destination()) {
        return Err(Turn::drop(DropReason::MappedAddress, NO_LINK));
    }
    let payload = header.payload_length().get();
    // The second would be longer than a frame can be; jumbograms (RFC 2675) have no length at all.
    if !header.is_version_6() || payload == 0 || payload > u16::MAX - Ipv6::OCTETS {
        let reason = DropReason::Malformed;
        return Err(not_handled::<V6, E>(env, attachment, header, reason));
    }
    let length = payload + Ipv6::OCTETS;
    if !env.holds(L3 + usize::from(length)) {
        let reason = DropReason::Truncated;
        return Err(not_handled::<V6, E>(env, attachment, header, reason));
    }
    let mut packet = Packet {
        family: PhantomData,
        protocol: header.next_header(),
        l4: Place::new(L3 + Ipv6::LENGTH),
        length,
        payload,
        fragment: Fragment::default(),
        to_group,
    };
    if is_extension(packet.protocol)
        && let Err(reason) = walk(env, &mut packet)
    {
        return Err(refuse(env, attachment, &packet, reason));
    }
    if packet.protocol == protocol::FRAGMENT
        && let Err(reason) = part(env, &mut packet)
    {
        return Err(refuse(env, attachment, &packet, reason));
    }
    if is_extension(packet.protocol) || packet.protocol == protocol::FRAGMENT {
        let reason = DropReason::ExtensionHeaders;
        return Err(refuse(env, attachment, &packet, reason));
    }
    Ok(packet)
}

/// Goes behind a fragment header. What is in it is a whole packet where it is the only fragment (RFC
/// 6946).
#[inline(always)]
fn part<E: Environment>(env: &E, packet: &mut Packet<V6>) -> Result<(), DropReason> {
    let header = FragmentHeader::at(env, packet.l4.get()).ok_or(DropReason::Truncated)?;
    if packet.payload < FragmentHeader::OCTETS {
        return Err(DropReason::Malformed);
    }
    packet.fragment = Fragment {
        id: header.id(),
        position: header.position().get() & !0b110,
    };
    packet.protocol = header.next_header();
    packet.l4 = packet.l4.plus(FragmentHeader::LENGTH);
    packet.payload -= FragmentHeader::OCTETS;
    Ok(())
}

/// Whether it is an extension header with a length (RFC 8200, section 4).
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS
    )
}

/// Goes behind the extension headers, or behind as many as are walked.
///
/// A header that makes a receiver send the packet on, answer elsewhere or treat it as another one is refused: routing
/// headers with segments left (RFC 7915, section 5.1; RFC 5095) and options other than padding (RFC 9288,
/// section 4). Hop-by-hop options come first or not at all (RFC 8200, section 4.1).
#[inline(always)]
fn walk<E: Environment>(env: &mut E, packet: &mut Packet<V6>) -> Result<(), DropReason> {
    for place in 0..MOST_EXTENSIONS {
        if !is_extension(packet.protocol) {
            break;
        }
        let extension = Extension::at(env, packet.l4.get()).ok_or(DropReason::Truncated)?;
        let octets = (u16::from(extension.length()) + 1) * 8;
        if octets > packet.payload || (place > 0 && packet.protocol == protocol::HOP_BY_HOP) {
            return Err(DropReason::Malformed);
        }
        if packet.protocol == protocol::ROUTING {
            if extension.segments_left() != 0 {
                return Err(DropReason::RoutingHeader);
            }
        } else if !extension.is_padding() {
            return Err(DropReason::Ipv6Options);
        }
        packet.protocol = extension.next_header();
        packet.l4 = packet.l4.plus(usize::from(octets));
        packet.payload -= octets;
    }
    let walked = packet.length - Ipv6::OCTETS - packet.payload;
    let walked = env.opaque(walked);
    if walked > MOST_WALKED {
        return Err(DropReason::ExtensionHeaders);
    }
    packet.l4 = Place::new(L3 + Ipv6::LENGTH + usize::from(walked));
    packet.payload = env.opaque(packet.payload);
    Ok(())
}
