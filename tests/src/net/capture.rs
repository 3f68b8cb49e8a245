//! Captures of a link, checked by independent programs: tcpdump records, tshark dissects.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    bpf::xdp_pass,
    net::{
        namespace::Namespace,
        process::{BackgroundProcess, run, succeed},
        wait,
    },
};

/// Display filter of tshark for packets with a wrong checksum or a malformed header.
///
/// A TCP checksum of 0xffff is accepted: it equals 0 in one's complement, and Linux sends it.
const MALFORMED_FILTER: &str = "ip.checksum.status == 0 || (tcp.checksum.status == 0 && tcp.checksum != 0xffff) || udp.checksum.status == 0 \
                   || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || _ws.malformed \
                   || _ws.expert.message contains \"Bogus\" || _ws.expert.message contains \"exceeds\"";

/// Protocols that tshark dissects, and the prefixes of the names of their options and extension headers.
///
/// Everything above TCP and UDP is left out. tshark selects dissectors of the layers above by port number, and
/// SNAT may allocate any port, so a dissector selected by chance would report foreign bytes as malformed.
const DISSECTED_PROTOCOLS: [&str; 10] = [
    "frame",
    "eth",
    "ethertype",
    "arp",
    "ip",
    "ipv6",
    "icmp",
    "icmpv6",
    "tcp",
    "udp",
];
const DISSECTED_PREFIXES: [&str; 4] = ["ip.options.", "ipv6.", "tcp.options.", "_ws."];

/// Limit on the run time of tshark.
const TSHARK_TIMEOUT: Duration = Duration::from_secs(180);

/// A running capture at a host's end of its link.
#[derive(Debug)]
pub struct Capture {
    running: BackgroundProcess,
    namespace: String,
    files: tempfile::TempDir,
    _pass: OwnedFd,
}

impl Capture {
    /// Starts to record `eth0`, with offloads disabled.
    ///
    /// The host computes checksums and builds segments itself from now on. Packets that it left to hardware, which a
    /// veth does not have, would be recorded with wrong checksums.
    ///
    /// # Panics
    /// Panics if tcpdump does not begin.
    #[must_use]
    #[track_caller]
    pub fn start(namespace: &Namespace) -> Self {
        // The program lets the link receive redirected frames without GRO, which would merge segments before they
        // are recorded.
        let pass = namespace.run_in(|| xdp_pass::attach("eth0").expect("a program"));
        succeed(&mut namespace.command_line("ethtool -K eth0 tx off tso off gso off gro off"));
        let files = tempfile::tempdir().expect("a directory");
        let path = files.path().join("capture");
        let mut command = namespace.command("tcpdump");
        // Packets of both directions are recorded whole, and written at once.
        command
            .args(["-i", "eth0", "-U", "-B", "65536", "-Z", "root", "-w"])
            .arg(&path)
            .stderr(Stdio::null());
        let running = BackgroundProcess::start(&mut command).expect("tcpdump");
        wait::until_true("tcpdump", || {
            std::fs::metadata(&path).is_ok_and(|file| file.len() >= 24)
        });
        Self {
            running,
            namespace: namespace.name().to_owned(),
            files,
            _pass: pass,
        }
    }

    /// Stops the capture, and expects no malformed packets in a file of at least `min_packets` bytes.
    ///
    /// # Panics
    /// Panics if something is wrong, or there is less.
    #[track_caller]
    pub fn expect_clean(mut self, min_packets: u64) {
        self.running.terminate();
        let length = std::fs::metadata(self.path()).expect("a capture").len();
        assert!(
            length >= min_packets,
            "only {length} bytes at {}",
            self.namespace
        );
        let bad = malformed_packets(&self.path());
        let first: Vec<&str> = bad.lines().take(10).collect();
        assert!(first.is_empty(), "at {}: {first:#?}", self.namespace);
    }

    fn path(&self) -> PathBuf {
        self.files.path().join("capture")
    }
}

/// Returns the packets of a capture file that are wrong from Ethernet up to TCP, UDP and ICMP, one a line.
///
/// # Panics
/// Panics if tshark fails.
#[must_use]
#[track_caller]
pub fn malformed_packets(capture: &Path) -> String {
    let settings = settings();
    let mut command = tshark(settings.path());
    for option in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{option}.check_checksum:TRUE")]);
    }
    command
        .args(["-o", "tcp.desegment_tcp_streams:FALSE"])
        .args(["-n", "-Y", MALFORMED_FILTER, "-r"])
        .arg(capture);
    // tshark is slow on a busy machine.
    let output = run(&mut command, TSHARK_TIMEOUT * wait::timeout_factor()).expect("tshark");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns a command that runs tshark with settings of a directory.
fn tshark(settings: &Path) -> Command {
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", settings);
    command
}

/// Returns a directory with settings that disable all protocols but [`DISSECTED_PROTOCOLS`].
///
/// The list is a file, since the command line has an option for a single protocol only, and there are
/// thousands.
#[track_caller]
fn settings() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = tshark(directory.path());
    let listed = run(
        command.args(["-G", "protocols"]),
        TSHARK_TIMEOUT * wait::timeout_factor(),
    );
    let listed = listed.expect("tshark");
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8_lossy(&listed.stdout);
    let names = listed.lines().filter_map(|line| line.split('\t').nth(2));
    let disabled: Vec<&str> = names.filter(|name| !is_dissected(name)).collect();
    std::fs::write(
        directory.path().join("disabled_protos"),
        disabled.join("\n"),
    )
    .expect("a file");
    directory
}

fn is_dissected(name: &str) -> bool {
    DISSECTED_PROTOCOLS.contains(&name)
        || DISSECTED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::packet::builders::{tcp, udp};

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

    /// Writes frames as a capture file of the classic format, link type Ethernet.
    fn pcap_file(frames: &[Vec<u8>]) -> tempfile::NamedTempFile {
        let mut bytes = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
            bytes.extend(word.to_ne_bytes());
        }
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            for word in [0, 0, length, length] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(frame);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn malformed_count(frames: &[Vec<u8>]) -> usize {
        malformed_packets(pcap_file(frames).path()).lines().count()
    }

    /// Ports of protocols that tshark knows: FTP, DNS, NetBIOS, LDAP, BGP, Kerberos, GTP, VXLAN, DoIP.
    #[test]
    fn payload_is_not_dissected_on_any_port() {
        let payload = [0xa5; 40];
        let ports = [21, 53, 137, 179, 389, 443, 464, 2_123, 2_152, 4_789, 13_400];
        let mut frames = Vec::new();
        for port in ports {
            for (source, destination) in [(port, 80), (40_000, port)] {
                let (from, to) = ((SOURCE, source), (DESTINATION, destination));
                frames.push(tcp(from, to).ack(1, 1).with_payload(&payload).bytes(false));
                frames.push(udp(from, to, &payload).bytes(false));
            }
        }
        assert_eq!(malformed_packets(pcap_file(&frames).path()), "");
    }

    #[test]
    fn wrong_checksums_and_headers_are_reported() {
        let segment = tcp((SOURCE, 40_000), (DESTINATION, 80))
            .ack(1, 1)
            .with_payload(b"data");
        let segment = segment.bytes(false);
        let datagram = udp((SOURCE, 40_000), (DESTINATION, 53), b"data").bytes(false);
        assert_eq!(malformed_count(&[segment.clone(), datagram.clone()]), 0);
        let with = |frame: &[u8], at: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[at] = value;
            frame
        };
        for (what, frame) in [
            ("checksum of IPv4", with(&segment, 24, segment[24] ^ 1)),
            ("checksum of TCP", with(&segment, 50, segment[50] ^ 1)),
            ("checksum of UDP", with(&datagram, 40, datagram[40] ^ 1)),
            ("data of TCP", with(&segment, 54, segment[54] ^ 1)),
            ("header length of IPv4", with(&segment, 14, 0x44)),
            ("header length of TCP", with(&segment, 46, 0x10)),
            ("length of UDP", with(&datagram, 39, 4)),
        ] {
            assert_eq!(malformed_count(&[segment.clone(), frame]), 1, "{what}");
        }
        assert_eq!(
            malformed_count(&[datagram[..38].to_vec()]),
            1,
            "header cut off"
        );
    }
}
