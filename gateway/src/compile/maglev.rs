//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) with weights. Pure.

use std::net::IpAddr;

use gateway_common::hash::mix;

/// Table sizes. They are primes, so that every backend's permutation visits every entry.
const TABLE_SIZES: [u32; 7] = [251, 1_021, 4_093, 8_191, 16_381, 32_749, 65_521];

/// Minimum number of table entries for each backend, which keeps shares exact to about a hundredth.
const ENTRIES_PER_BACKEND: u32 = 100;

/// A backend that can take new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Address of the backend. The permutation is derived from it, so that the table depends neither on the order of
    /// the list nor on slots.
    pub address: IpAddr,
    /// Weight relative to the other backends, not 0.
    pub weight: u16,
}

/// Returns the size of the table for a number of backends: 0 for none, 1 for one.
#[must_use]
pub fn table_size(candidates: usize) -> u32 {
    match candidates {
        0 | 1 => u32::from(candidates == 1),
        many => {
            let min_size = u32::try_from(many)
                .unwrap_or(u32::MAX)
                .saturating_mul(ENTRIES_PER_BACKEND);
            let fitting = TABLE_SIZES.iter().find(|size| **size >= min_size);
            fitting
                .copied()
                .unwrap_or(TABLE_SIZES[TABLE_SIZES.len() - 1])
        }
    }
}

/// Builds the table. Each entry is the index of a backend in `candidates`.
///
/// The table is a function of addresses and weights alone, so that all gateways with the same configuration have the
/// same table.
#[must_use]
pub fn build_table(candidates: &[Candidate]) -> Vec<usize> {
    let size = table_size(candidates.len());
    let mut permutations: Vec<Permutation> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| Permutation::new(index, candidate, size))
        .collect();
    // Backends choose entries in an order that does not depend on the order of the list.
    permutations
        .sort_by_key(|permutation| (permutation.rank, candidates[permutation.index].address));
    let max_weight = candidates
        .iter()
        .map(|candidate| u32::from(candidate.weight))
        .max();
    let Some(max_weight) = max_weight else {
        return Vec::new();
    };
    let mut entries = vec![usize::MAX; size as usize];
    let mut free = entries.len();
    loop {
        for permutation in &mut permutations {
            // A backend with half of the maximum weight chooses in every second round.
            permutation.credit += u32::from(candidates[permutation.index].weight);
            if permutation.credit < max_weight {
                continue;
            }
            permutation.credit -= max_weight;
            if free == 0 {
                return entries;
            }
            let entry = permutation.next_free(&entries, size);
            entries[entry] = permutation.index;
            free -= 1;
        }
    }
}

/// Mask of the lower half of an IPv6 address.
const LOW_64_BITS: u128 = u64::MAX as u128;

/// Position of a backend in its permutation of the table's entries.
struct Permutation {
    index: usize,
    rank: u64,
    position: u32,
    skip: u32,
    credit: u32,
}

impl Permutation {
    fn new(index: usize, candidate: &Candidate, size: u32) -> Self {
        let hash = match candidate.address {
            IpAddr::V4(address) => mix(0, u64::from(u32::from(address))),
            IpAddr::V6(address) => {
                let (high, low) = (u128::from(address) >> 64, u128::from(address) & LOW_64_BITS);
                mix(
                    mix(0, u64::try_from(high).unwrap_or(0)),
                    u64::try_from(low).unwrap_or(0),
                )
            }
        };
        let modulus = u64::from(size);
        let below = |value: u64| u32::try_from(value).unwrap_or(0);
        Self {
            index,
            rank: hash,
            position: below((hash >> 32) % modulus),
            skip: if size > 1 {
                below((hash & 0xffff_ffff) % (modulus - 1) + 1)
            } else {
                0
            },
            credit: 0,
        }
    }

    /// Returns the next free entry of the permutation. There must be one.
    fn next_free(&mut self, entries: &[usize], size: u32) -> usize {
        loop {
            let entry = self.position as usize;
            self.position = (self.position + self.skip) % size;
            if entries[entry] == usize::MAX {
                return entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn backends(weights: &[u16]) -> Vec<Candidate> {
        (0u32..)
            .zip(weights)
            .map(|(number, weight)| Candidate {
                address: IpAddr::V4(Ipv4Addr::from(0x0a01_000a + number)),
                weight: *weight,
            })
            .collect()
    }

    /// Returns the share of each backend, in thousandths of the share that its weight entitles it to.
    fn shares(candidates: &[Candidate]) -> Vec<u64> {
        let table = build_table(candidates);
        let total: u64 = candidates
            .iter()
            .map(|candidate| u64::from(candidate.weight))
            .sum();
        (0..candidates.len())
            .map(|index| {
                let has = table.iter().filter(|found| **found == index).count() as u64;
                has * 1_000 * total / (u64::from(candidates[index].weight) * table.len() as u64)
            })
            .collect()
    }

    #[test]
    fn empty_and_single_candidate_tables() {
        assert_eq!(build_table(&[]), Vec::<usize>::new());
        assert_eq!(build_table(&backends(&[7])), [0]);
    }

    #[test]
    fn shares_follow_weights() {
        for weights in [
            &[1, 1][..],
            &[1, 1, 1],
            &[3, 1],
            &[10, 1],
            &[1, 2, 3, 4],
            &[1; 50],
        ] {
            for share in shares(&backends(weights)) {
                assert!(
                    (900..1_100).contains(&share),
                    "{weights:?}: {share} thousandths"
                );
            }
        }
    }

    #[test]
    fn removing_one_of_ten_moves_few_entries() {
        let before = backends(&[1; 10]);
        let mut after = before.clone();
        let lost = after.remove(3).address;
        let (old, new) = (build_table(&before), build_table(&after));
        assert_eq!(old.len(), new.len());
        let moved = old
            .iter()
            .zip(&new)
            .filter(|(old, new)| {
                let was = before[**old].address;
                was != lost && was != after[**new].address
            })
            .count();
        // Measured: 2.7 %, which is in the range of the paper's figures for small tables.
        assert!(moved * 100 < old.len() * 6, "{moved} of {}", old.len());
    }

    proptest! {
        #[test]
        fn order_of_the_list_does_not_matter(
            weights in proptest::collection::vec(1u16..5, 1..20),
            rotation in any::<prop::sample::Index>(),
        ) {
            let one = backends(&weights);
            let mut other = one.clone();
            other.rotate_left(rotation.index(weights.len()));
            let names = |candidates: &[Candidate]| -> Vec<IpAddr> {
                build_table(candidates).into_iter().map(|index| candidates[index].address).collect()
            };
            prop_assert_eq!(names(&one), names(&other));
        }

        #[test]
        fn table_is_filled_completely(weights in proptest::collection::vec(1u16..=1_000, 1..40)) {
            // Extreme weights must not leave an entry of the table empty.
            let candidates = backends(&weights);
            let mut counts: HashMap<usize, u32> = HashMap::new();
            for index in build_table(&candidates) {
                *counts.entry(index).or_default() += 1;
            }
            prop_assert_eq!(counts.values().sum::<u32>(), table_size(weights.len()));
        }
    }
}
