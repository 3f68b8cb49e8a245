//! What the agent gives up before it does anything else: it starts as root, and needs little of that.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

/// What it keeps: attaching programs and keeping neighbours, sending frames, loading and mapping.
pub const RETAINED: [Capability; 4] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
];

/// Raises the limit of open descriptors as far as it may be.
///
/// Service managers set 1,024, which is what the listener for tenants alone may hold: without more, a flood of
/// connections there would keep the operator out of the control socket, too.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the structure, which outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max.min(MAX_DESCRIPTORS);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        log::warn!("limits: could not raise the number of open descriptors");
    }
}

/// Open descriptors that are enough for all listeners, maps and health checks.
const MAX_DESCRIPTORS: libc::rlim_t = 65_536;

/// Gives up all capabilities but [`KEPT`], for good, in this thread and those that it makes from now on.
///
/// # Errors
/// When the kernel refuses.
pub fn drop_capabilities() -> Result<()> {
    let retained: HashSet<Capability> = RETAINED.into_iter().collect();
    let has = caps::read(None, CapSet::Permitted).context("could not read the capabilities")?;
    // First what can't be got again by executing something.
    if has.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            if !retained.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability)
                    .with_context(|| format!("could not give up {capability}"))?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).context("could not clear the ambient capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("could not clear what is inherited")?;
    let retained: HashSet<Capability> = retained.intersection(&has).copied().collect();
    caps::set(None, CapSet::Effective, &retained).context("could not give up capabilities")?;
    caps::set(None, CapSet::Permitted, &retained).context("could not give up capabilities")?;
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if result != 0 {
        return Err(std::io::Error::last_os_error())
            .context("could not rule out that privileges come back");
    }
    Ok(())
}
