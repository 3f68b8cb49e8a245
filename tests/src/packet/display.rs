//! Packets as text, for messages of failed tests.

use std::fmt;

use super::*;

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = |mac: Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
        writeln!(f, "  {} > {}", mac(self.from), mac(self.to))?;
        match &self.content {
            Content::Ipv4(ipv4) => {
                writeln!(
                    f,
                    "  {} > {} ttl {} id {:#06x} fragment {:#06x}",
                    ipv4.source, ipv4.destination, ipv4.ttl, ipv4.id, ipv4.fragment
                )?;
                write!(f, "  {:?}", ipv4.transport)
            }
            other => write!(f, "  {other:?}"),
        }
    }
}
