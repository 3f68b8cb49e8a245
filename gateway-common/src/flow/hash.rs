//! The keyed hash that selects the two buckets of a flow key: multilinear hashing.
//!
//! Every 32-bit word of the key is multiplied by a secret 64-bit number of its own, and the products are added. For
//! random numbers the upper half of the sum is strongly universal (Lemire and Kaser, "Strongly universal string hashing
//! is fast"): two keys share a bucket by chance only, whatever the keys are, so nobody can aim at a bucket. The
//! multiplications do not wait for each other, and so an IPv6 key costs little more than an IPv4 key.

use crate::{family::Family, flow::FlowKey, hash};

/// Number of secret numbers: one to begin with, and one for each word of an IPv6 key.
pub const HASH_KEY_COUNT: usize = 11;

/// Factor that spreads the upper half of a sum over all bits.
pub const HASH_FINISH: u64 = 0xbf58_476d_1ce4_e5b9;

/// The secret numbers of a flow table's hash.
pub type HashKeys = [u64; HASH_KEY_COUNT];

/// Returns the secret numbers that belong to a seed.
#[must_use]
pub fn derive_hash_keys(seed: u64) -> HashKeys {
    let mut state = hash::mix(seed, 0x666c_6f77);
    core::array::from_fn(|index| {
        state = hash::mix(state, index as u64);
        state
    })
}

/// Returns a number that tells the hashes of two seeds apart, and is not 0.
#[must_use]
pub fn fingerprint(seed: u64) -> u64 {
    derive_hash_keys(seed).into_iter().fold(1, hash::mix).max(1)
}

/// Returns the hash of a key. `number` returns the secret number with an index.
#[inline(always)]
pub fn hash_key<F: Family>(key: &FlowKey<F>, number: impl Fn(usize) -> u64) -> u64 {
    let mut sum = number(0)
        .wrapping_add(number(1).wrapping_mul(u64::from(key.network_proto.to_bits())))
        .wrapping_add(number(2).wrapping_mul(u64::from(key.ports.to_wire().raw())));
    for word in 0..F::ADDRESS_WORDS {
        let source = u64::from(F::address_word(key.source, word));
        let destination = u64::from(F::address_word(key.destination, word));
        sum = sum
            .wrapping_add(number(3 + 2 * word).wrapping_mul(source))
            .wrapping_add(number(4 + 2 * word).wrapping_mul(destination));
    }
    // The upper half is the good one. The multiplication spreads it over all bits, for a second bucket.
    (sum ^ (sum >> 32)).wrapping_mul(HASH_FINISH)
}

/// Returns one of the two buckets of a hash, of `count` buckets.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "takes one half each")]
pub const fn bucket_index(hash: u64, choice: u32, count: u32) -> u32 {
    let half = if choice == 0 {
        (hash >> 32) as u32
    } else {
        (hash ^ (hash >> 29)) as u32
    };
    hash::reduce(half, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        byte_order::{Be16, Be32},
        family::V4,
        flow::NetworkProto,
        packet::PortPair,
    };

    fn key(client: u32, port: u16) -> FlowKey<V4> {
        FlowKey {
            network_proto: NetworkProto::new(3, 6),
            source: Be32::new(client),
            destination: Be32::new(0x0a00_0064),
            ports: PortPair::new(Be16::new(port), Be16::new(443)),
        }
    }

    #[test]
    fn neighbouring_keys_spread_evenly_over_both_choices() {
        let keys = derive_hash_keys(7);
        let mut counts = [[0u32; 64]; 2];
        for client in 0..8 {
            for port in 0..8_000 {
                let hash = hash_key(&key(0x0a00_0005 + client, port), |index| keys[index]);
                for choice in 0..2 {
                    counts[choice as usize][bucket_index(hash, choice, 64) as usize] += 1;
                }
            }
        }
        // 1,000 are expected in each bucket. A fair hash stays within about four standard deviations.
        let fair = counts.iter().flatten().all(|n| (860..1_140).contains(n));
        assert!(fair, "{counts:?}");
    }

    #[test]
    fn choices_are_independent() {
        let keys = derive_hash_keys(11);
        let mut together = [[0u32; 8]; 8];
        for port in 0..64_000 {
            let hash = hash_key(&key(5, port), |index| keys[index]);
            let [a, b] = [0, 1].map(|choice| bucket_index(hash, choice, 8) as usize);
            together[a][b] += 1;
        }
        let fair = together.iter().flatten().all(|n| (860..1_140).contains(n));
        assert!(fair, "{together:?}");
    }
}
