//! Settings of the host that keep the answers of a backend from the probe.

use std::net::IpAddr;

use crate::netlink::{Netlink, reverse_path_setting, strict_reverse_path_filter};

/// Returns the setting in the way of a backend's answers, with what to do about it.
///
/// Answers arrive at the interface that the probe left by. A strict reverse path filter drops them there if the host's
/// route to the backend leads through another interface, as it does for all but one of the interfaces whose networks
/// have the same prefix.
pub(super) async fn find_obstacle(
    netlink: &Netlink,
    interface: &str,
    backend: IpAddr,
) -> Option<String> {
    if backend.is_ipv6() {
        return None;
    }
    let strict = strict_reverse_path_filter(interface)?;
    let link = netlink.link(interface).await.ok()??;
    if netlink.routes_through(link.ifindex, backend).await {
        return None;
    }
    Some(format!(
        "{strict} is 1 and the host's route to {backend} is not through {interface}, so the kernel drops the answers: \
         set {} to 2",
        reverse_path_setting(interface)
    ))
}
