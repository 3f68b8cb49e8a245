"""Sends malformed frames, made by Scapy, from the consumer's host to an endpoint.

Arguments: the interface, the gateway's MAC address, the endpoint's IPv4 address and its IPv6 address. Prints the
number of frames sent. The gateway must forward none of them."""

import random
import sys

from scapy.all import (
    ARP, Dot1Q, Ether, ICMP, IP, IPOption, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, ICMPv6DestUnreach, ICMPv6ND_NA, ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, ICMPv6PacketTooBig, Raw, TCP, UDP, conf, raw, sendp,
)

interface, gateway, v4, v6 = sys.argv[1:]
random.seed(7)
ether = Ether(dst=gateway)
four = dict(src="10.0.0.5", dst=v4)
six = dict(src="fd00::5", dst=v6)
syn = TCP(sport=40000, dport=443, flags="S", seq=1)
frames = []


def add_truncated(packet, *lengths):
    frames.extend(raw(packet)[:length] for length in lengths)


# Truncated headers.
add_truncated(ether / IP(**four) / syn, *range(15, 54, 3))
add_truncated(ether / IPv6(**six) / syn, *range(15, 74, 5))
add_truncated(ether / ARP(pdst=v4), 20, 30, 41)
# Total and payload lengths that contradict the length of the frame.
for length in (0, 1, 19, 20, 39, 41, 1500, 65535):
    frames.append(ether / IP(**four, len=length) / syn)
for length in (1, 7, 19, 21, 1500, 65535):
    frames.append(ether / IPv6(**six, plen=length) / syn)
# Wrong versions and header lengths, and IPv4 options.
for ihl in (0, 1, 4, 6, 15):
    frames.append(ether / IP(**four, ihl=ihl) / syn)
for version in (0, 1, 5, 6, 15):
    frames.append(ether / IP(**four, version=version) / syn)
    frames.append(ether / IPv6(**six, version=4 if version == 6 else version) / syn)
frames.append(ether / IP(**four, options=[IPOption(b"\x83\x07\x04\x0a\x00\x00\x01\x00")]) / syn)
# TCP: wrong data offsets, and flags that open no flow.
for offset in (0, 1, 4, 15):
    frames.append(ether / IP(**four) / TCP(sport=40000, dport=443, flags="S", dataofs=offset))
    frames.append(ether / IPv6(**six) / TCP(sport=40000, dport=443, flags="S", dataofs=offset))
for flags in ("", "A", "F", "R", "P", "U", "SF", "SR", "SA", "FPU", "SFRPAU"):
    frames.append(ether / IP(**four) / TCP(sport=40001, dport=443, flags=flags))
    frames.append(ether / IPv6(**six) / TCP(sport=40001, dport=443, flags=flags))
# UDP: wrong lengths, and no checksum in IPv6.
for length in (0, 7, 9, 65535):
    frames.append(ether / IP(**four) / UDP(sport=40000, dport=53, len=length))
    frames.append(ether / IPv6(**six) / UDP(sport=40000, dport=53, len=length))
frames.append(ether / IPv6(**six) / UDP(sport=40000, dport=53, chksum=0))
# Fragments: without a first fragment, too short, overlapping, and beyond the maximum packet length.
for offset in (1, 2, 185, 8189, 8191):
    for flags in (0, "MF"):
        frames.append(ether / IP(**four, id=77, frag=offset, flags=flags, proto=17) / Raw(b"x" * 21))
        frames.append(ether / IPv6(**six) / IPv6ExtHdrFragment(
            nh=17, offset=offset, m=1 if flags else 0, id=77) / Raw(b"x" * 21))
frames.append(ether / IP(**four, id=78, flags="MF", proto=6) / Raw(raw(syn)[:8]))
frames.append(ether / IP(**four, id=78, frag=1, proto=6) / Raw(raw(syn)[8:]))
frames.append(ether / IPv6(**six) / IPv6ExtHdrFragment(nh=6, m=1, id=78) / Raw(raw(syn)[:8]))
frames.append(ether / IPv6(**six) / IPv6ExtHdrFragment(nh=6, offset=1, id=78) / Raw(raw(syn)[8:]))
# Extension headers: too many, a wrong length, and headers that hide those behind them.
for count in (5, 8, 20):
    chain = IPv6(**six)
    for _ in range(count):
        chain = chain / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    frames.append(ether / chain / syn)
for header in (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt):
    frames.append(ether / IPv6(**six) / header(len=200) / syn)
frames.append(ether / IPv6(**six) / IPv6ExtHdrRouting(len=255) / syn)
for number in (50, 51, 59, 135, 139, 140, 253):
    frames.append(ether / IPv6(**six, nh=number) / Raw(b"\0" * 24))
# ICMP errors about packets of no flow: with truncated embedded packets, a wrong checksum, or no valid content.
inner = raw(IP(src=v4, dst="10.0.0.5") / UDP(sport=53, dport=40000))
for length in (0, 7, 20, 27, 28):
    frames.append(ether / IP(**four) / ICMP(type=3, code=3) / Raw(inner[:length]))
frames.append(ether / IP(**four) / ICMP(type=3, code=4, chksum=1) / Raw(inner))
frames.append(ether / IPv6(**six) / ICMPv6DestUnreach() / Raw(b"\0" * 48))
frames.append(ether / IPv6(**six) / ICMPv6PacketTooBig(mtu=1) / Raw(b"\0" * 60))
for kind in (4, 5, 9, 10, 13, 15, 17, 40, 255):
    frames.append(ether / IP(**four) / ICMP(type=kind))
# ARP of other types, lengths and operations.
for field in (dict(hwtype=6, hwlen=6), dict(ptype=0x86dd), dict(hwlen=8), dict(plen=16), dict(op=3), dict(op=9)):
    frames.append(ether / ARP(psrc="10.0.0.5", pdst=v4, **field))
# Neighbour discovery: from behind a router, other codes, cut messages, multicast targets, probes that are none, a
# solicited advertisement to a group, options of length 0 and options that are too long.
source = ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:01:05")
target = ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:01:05")
near = dict(src="fd00::5", hlim=255)
for destination in (v6, "ff02::1"):
    for message in (
        ICMPv6ND_NS(tgt=v6, code=1) / source,
        ICMPv6ND_NS(tgt="ff02::1") / source,
        ICMPv6ND_NS(tgt=v6) / ICMPv6NDOptSrcLLAddr(len=0),
        ICMPv6ND_NS(tgt=v6) / ICMPv6NDOptSrcLLAddr(len=2),
        ICMPv6ND_NA(tgt=v6, code=1) / target,
        ICMPv6ND_NA(tgt="ff02::1") / target,
        ICMPv6ND_NA(tgt=v6, S=0) / ICMPv6NDOptDstLLAddr(len=0),
    ):
        frames.append(ether / IPv6(dst=destination, **near) / message)
    frames.append(ether / IPv6(src="fd00::5", dst=destination, hlim=254) / ICMPv6ND_NS(tgt=v6) / source)
    frames.append(ether / IPv6(src="::", dst=destination, hlim=255) / ICMPv6ND_NS(tgt=v6))
    frames.append(ether / IPv6(src="::", dst=destination, hlim=255) / ICMPv6ND_NS(tgt=v6) / source)
frames.append(ether / IPv6(dst="ff02::1", **near) / ICMPv6ND_NA(tgt=v6, S=1) / target)
# Martian sources, wrong MAC addresses, VLAN tags, unsupported protocols.
for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", v4):
    frames.append(ether / IP(src=source, dst=v4) / syn)
for source in ("::", "::1", "ff02::1", "::ffff:10.0.0.5", v6):
    frames.append(ether / IPv6(src=source, dst=v6) / syn)
frames.append(Ether(dst=gateway, src="01:00:5e:00:00:01") / IP(**four) / syn)
frames.append(Ether(dst="ff:ff:ff:ff:ff:ff") / IP(**four) / syn)
frames.append(Ether(dst="02:99:99:99:99:99") / IP(**four) / syn)
frames.append(ether / Dot1Q(vlan=7) / IP(**four) / syn)
frames.append(ether / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IPv6(**six) / syn)
for number in (0, 2, 4, 41, 47, 50, 103, 132, 136, 255):
    frames.append(ether / IP(**four, proto=number) / Raw(b"\0" * 40))
# Random bytes behind valid headers.
for _ in range(300):
    head = random.choice([raw(ether / IP(**four))[:-1], raw(ether / IPv6(**six))[:-1], raw(ether)])
    frames.append(head + bytes([random.choice([0x10, 0x50, 0x90])]) + random.randbytes(random.randrange(80)))

conf.verb = 0
# The kernel refuses to send a frame without a byte behind the Ethernet header.
frames = [frame for frame in (bytes(frame) for frame in frames) if len(frame) >= 15]
sendp([Raw(frame) for frame in frames], iface=interface)
print(len(frames))
