//! Packet counters of interfaces.

use std::{collections::BTreeMap, fs, io};

/// File with the counters of all interfaces of this network namespace. One read costs the kernel less than a dump of
/// interfaces over netlink, whose messages are large.
const COUNTERS: &str = "/proc/self/net/dev";

/// Returns the number of packets that each interface has received since it exists, by name.
///
/// Drivers count a frame before an XDP program drops or redirects it.
///
/// # Errors
/// Fails if the file of counters can't be read.
pub fn received_packets() -> io::Result<BTreeMap<String, u64>> {
    fs::read_to_string(COUNTERS).map(|text| parse_received(&text))
}

/// Parses the file: two lines of headings, then `NAME: BYTES PACKETS ...` for each interface.
fn parse_received(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().skip(2);
    let counters = lines.filter_map(|line| {
        // The counters have no colon, and a name may have one.
        let (name, counters) = line.rsplit_once(':')?;
        let packets = counters.split_whitespace().nth(1)?.parse().ok()?;
        Some((name.trim_start().to_owned(), packets))
    });
    counters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_packets_are_parsed_by_name() {
        let text = "Inter-|   Receive                  |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
                    lo:     240       4    0    0    0     0          0         0      240       4\n\
                    eth0.100: 1500000000000 1000000000 0 0 0 0 0 0 9 1\n   \
                    a:b:       0       0    0    0    0     0          0         0        0       0\n";
        let expected = [("a:b", 0), ("eth0.100", 1_000_000_000), ("lo", 4)];
        let expected = expected.map(|(name, packets)| (name.to_owned(), packets));
        assert_eq!(parse_received(text), BTreeMap::from(expected));
        assert_eq!(parse_received(""), BTreeMap::new());
    }
}
