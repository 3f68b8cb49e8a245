//! Capabilities and resource limits of the agent's process.
//!
//! The agent starts as root, and drops all capabilities that it does not need before it starts threads.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

/// Capabilities that the agent keeps: `CAP_NET_ADMIN` to attach programs and set up interfaces, `CAP_NET_RAW` to send
/// frames, `CAP_BPF` and `CAP_PERFMON` to load programs and use maps.
pub const RETAINED: [Capability; 4] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
];

/// Raises the limit of open descriptors to the hard limit, but not above `MAX_DESCRIPTORS`.
///
/// Service managers set 1,024, which is as many as the listener for tenants may use. Without a higher limit a flood of
/// connections to that listener would exhaust the descriptors of the control socket, too.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls access only the structure, which outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max.min(MAX_DESCRIPTORS);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        log::warn!("limits: descriptor limit not raised");
    }
}

/// Number of open descriptors that suffices for all listeners, maps and health checks.
const MAX_DESCRIPTORS: libc::rlim_t = 65_536;

/// Drops all capabilities except [`RETAINED`], irrevocably, for this thread and the threads that it starts afterwards.
///
/// # Errors
/// Fails if the kernel refuses a step.
pub fn drop_capabilities() -> Result<()> {
    let retained: HashSet<Capability> = RETAINED.into_iter().collect();
    let has =
        caps::read(None, CapSet::Permitted).context("could not read the permitted capabilities")?;
    // The bounding set comes first, since it takes CAP_SETPCAP: a program executed later can't regain capabilities
    // outside it.
    if has.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            if !retained.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability).with_context(|| {
                    format!("could not drop {capability} from the bounding set")
                })?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).context("could not clear the ambient capabilities")?;
    caps::clear(None, CapSet::Inheritable)
        .context("could not clear the inheritable capabilities")?;
    let retained: HashSet<Capability> = retained.intersection(&has).copied().collect();
    caps::set(None, CapSet::Effective, &retained)
        .context("could not set the effective capabilities")?;
    caps::set(None, CapSet::Permitted, &retained)
        .context("could not set the permitted capabilities")?;
    // SAFETY: the call takes only numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("could not set no_new_privs");
    }
    Ok(())
}
