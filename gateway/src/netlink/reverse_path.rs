//! Reverse path filter: the host's check of the interfaces that packets come from (`rp_filter`, RFC 3704).

use std::fs;

/// Setting that lets a packet pass only if the route to its source leads through the interface where it arrived.
const STRICT: u32 = 1;

/// Returns the name of the setting that makes the filter of an interface strict, or `None` if the filter is off or
/// loose.
///
/// The larger one of the interface's own setting and the one for all interfaces is in force.
#[must_use]
pub fn strict_reverse_path_filter(interface: &str) -> Option<String> {
    strict_setting(interface, |of| {
        let path = format!("/proc/sys/net/ipv4/conf/{of}/rp_filter");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

/// Returns the name of an interface's setting, as `sysctl` takes it.
#[must_use]
pub fn reverse_path_setting(interface: &str) -> String {
    format!("net.ipv4.conf.{}.rp_filter", interface.replace('.', "/"))
}

fn strict_setting(interface: &str, read: impl Fn(&str) -> Option<u32>) -> Option<String> {
    let settings = [interface, "all"].map(|of| (of, read(of).unwrap_or(0)));
    let in_force = settings.iter().map(|(_, value)| *value).max();
    let mut strict = settings.iter().filter(|(_, value)| *value == STRICT);
    let (of, _) = strict.next().filter(|_| in_force == Some(STRICT))?;
    Some(reverse_path_setting(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_setting_is_in_force() {
        let strict = |own: u32, all: u32| {
            strict_setting("eth0.100", |of| Some(if of == "all" { all } else { own }))
        };
        let own = Some("net.ipv4.conf.eth0/100.rp_filter".to_owned());
        assert_eq!(strict(1, 0), own);
        assert_eq!(strict(1, 1), own);
        let all = Some("net.ipv4.conf.all.rp_filter".to_owned());
        assert_eq!(strict(0, 1), all);
        for (own, all) in [(0, 0), (2, 1), (1, 2), (0, 2), (2, 0)] {
            assert_eq!(strict(own, all), None, "{own} {all}");
        }
        assert_eq!(strict_setting("gone", |_| None), None);
    }
}
