//! Captures of announcements at a host: tcpdump prints what arrives.

use std::{net::IpAddr, process::Stdio};

use tests::net::{namespace::Namespace, process::BackgroundProcess, wait};

/// A running capture of ARP and ICMPv6.
pub(crate) struct Watch {
    _tcpdump: BackgroundProcess,
    shown: tempfile::NamedTempFile,
}

impl Watch {
    /// Starts a capture of all interfaces of a host: it goes on while one of them is down.
    #[track_caller]
    pub(crate) fn start(host: &Namespace) -> Self {
        let shown = tempfile::NamedTempFile::new().expect("a file");
        let status = tempfile::NamedTempFile::new().expect("a file");
        let mut command =
            host.command_line("tcpdump -n -e -l -i any --immediate-mode -Z root arp or icmp6");
        command
            .stdout(Stdio::from(shown.reopen().expect("a file")))
            .stderr(Stdio::from(status.reopen().expect("a file")));
        let tcpdump = BackgroundProcess::start(&mut command).expect("tcpdump");
        wait::until_true("tcpdump to listen", || {
            let status = std::fs::read_to_string(status.path()).expect("a file");
            status.contains("listening on")
        });
        Self {
            _tcpdump: tcpdump,
            shown,
        }
    }

    /// Returns the lines that were printed so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.shown.path()).expect("a file");
        text.lines().map(str::to_owned).collect()
    }

    /// Returns the number of announcements of an address by the host with this MAC address.
    pub(crate) fn announcements(&self, address: IpAddr, mac: &str) -> usize {
        let text = if address.is_ipv4() {
            format!("who-has {address} tell {address},")
        } else {
            format!("{address} > ff02::1: ICMP6, neighbor advertisement, tgt is {address},")
        };
        // tcpdump writes the target of a gratuitous request in brackets if it is not zero.
        let lines = self.lines().into_iter();
        lines
            .filter(|line| line.contains(mac) && line.contains(&text))
            .count()
    }

    /// Waits for more announcements of each address than there are in `before`.
    #[track_caller]
    pub(crate) fn wait_for(&self, addresses: &[IpAddr], mac: &str, before: &[usize], when: &str) {
        for (address, before) in addresses.iter().zip(before) {
            let more = if address.is_ipv4() { 2 } else { 3 };
            wait::until_true(
                &format!("{more} announcements of {address} by {mac} after {when}"),
                || self.announcements(*address, mac) >= before + more,
            );
        }
    }

    /// Returns the numbers of announcements of addresses.
    pub(crate) fn counts(&self, addresses: &[IpAddr], mac: &str) -> Vec<usize> {
        let counts = addresses.iter();
        counts
            .map(|address| self.announcements(*address, mac))
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("captured: {:#?}", self.lines());
        }
    }
}

/// Returns the MAC address of an interface.
#[track_caller]
pub(crate) fn mac_of(host: &Namespace, interface: &str) -> String {
    let link = host.ip(&format!("-o link show dev {interface}"));
    let mut fields = link.split_whitespace();
    fields
        .by_ref()
        .find(|word| *word == "link/ether")
        .expect("an Ethernet interface");
    fields.next().expect("an address").to_owned()
}
