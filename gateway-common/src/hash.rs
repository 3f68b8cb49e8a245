//! The keyed hash that selects backends, SNAT ports and the buckets of identifications.
//!
//! The hash must spread well and cost little in eBPF. It need not be cryptographic: its seed is secret, which keeps
//! an outsider from steering flows onto one backend and from guessing ports off-path (RFC 6056).

/// The 64-bit golden ratio, and a second odd constant with well-mixed bits (splitmix64).
const MULTIPLIERS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];

/// Mixes one more word into the hash `state`.
#[inline(always)]
#[must_use]
pub const fn mix(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(MULTIPLIERS[0]);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(MULTIPLIERS[1]);
    mixed ^ (mixed >> 29)
}

/// Maps 32 well-mixed bits to `0..size` without a division (Lemire's multiply-shift).
#[inline(always)]
#[must_use]
pub const fn reduce(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_inputs_spread_evenly() {
        let mut counts = [0u32; 64];
        for port in 0..64_000u64 {
            let hash = mix(mix(7, 0x0a00_0005), port);
            counts[reduce((hash >> 32) as u32, 64) as usize] += 1;
        }
        // 1,000 are expected in each bucket. A fair hash stays within about four standard deviations.
        let fair = counts.iter().all(|count| (860..1_140).contains(count));
        assert!(fair, "{counts:?}");
    }

    #[test]
    fn hash_depends_on_the_seed() {
        assert_ne!(mix(1, 42), mix(2, 42));
    }
}
