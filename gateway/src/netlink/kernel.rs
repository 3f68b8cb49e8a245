//! Version of the running kernel, and its limits.

use anyhow::{Context as _, Result, bail};

/// Oldest kernel that the XDP program is tested on.
const MIN_VERSION: (u32, u32) = (6, 1);

/// First kernel that redirects frames of several buffers.
const JUMBO_REDIRECT_VERSION: (u32, u32) = (6, 3);

/// Largest packet that always fits into one buffer, in bytes: a page without the headroom and without the data that the
/// kernel keeps behind a frame.
const MAX_LINEAR_PACKET_LEN: u32 = 3_498;

/// Major and minor version of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    version: (u32, u32),
}

impl Kernel {
    /// Returns the version of the running kernel.
    ///
    /// # Errors
    /// Fails if the kernel is too old, or if its release can't be read.
    pub fn running() -> Result<Self> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("could not read the kernel's release from /proc/sys/kernel/osrelease")?;
        Self::from_release(release.trim())
    }

    fn from_release(release: &str) -> Result<Self> {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map_while(|number| number.parse().ok());
        let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
            bail!("the kernel's release {release:?} does not begin with a version");
        };
        let version = (major, minor);
        if version < MIN_VERSION {
            bail!(
                "this is Linux {release}, and {}.{} or newer is needed: boot a newer kernel",
                MIN_VERSION.0,
                MIN_VERSION.1
            );
        }
        Ok(Self { version })
    }

    /// Returns the largest packet that can be forwarded, if the kernel limits it.
    #[must_use]
    pub fn max_packet_len(self) -> Option<u32> {
        (self.version < JUMBO_REDIRECT_VERSION).then_some(MAX_LINEAR_PACKET_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_parsed() {
        for (release, limit) in [
            ("6.1.0-56-cloud-amd64", Some(MAX_LINEAR_PACKET_LEN)),
            ("6.2.16", Some(MAX_LINEAR_PACKET_LEN)),
            ("6.3.0", None),
            ("6.18.5-custom+", None),
            ("7.0-rc1", None),
        ] {
            assert_eq!(
                Kernel::from_release(release).unwrap().max_packet_len(),
                limit
            );
        }
        let refusal = Kernel::from_release("5.15.0-91-generic")
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("5.15.0-91-generic") && refusal.contains("6.1 or newer"));
        assert!(Kernel::from_release("plan9").is_err() && Kernel::from_release("").is_err());
    }
}
